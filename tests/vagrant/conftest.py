"""Puts the tree on the path, so that a plain `pytest` can import `vagrant.runner` too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
