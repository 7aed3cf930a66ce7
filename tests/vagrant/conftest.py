"""Makes `vagrant.runner` importable by a bare `pytest` too: a tool of the tree, not of the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
