"""The commands of ``vscsihba``: one file a command, with its parser and its work."""
