"""`python -m vagrant.lane`: calls the command line of `cli`."""

import sys

from vagrant.lane.cli import main

sys.exit(main(sys.argv[1:]))
