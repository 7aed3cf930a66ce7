"""``python -m vscsihba``: the same as the program ``vscsihba``."""

import sys

from vscsihba.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
