"""LIO's saveconfig.json, as targetcli and tcmu-runner use it, made into a document of ours.

Pure: reads no file and knows nothing of this machine. Whatever has no counterpart is said in a line of text.
"""

from vscsihba.config.saveconfig.conversion import Conversion, convert

__all__ = ["Conversion", "convert"]
