"""`python -m vagrant.lane`: hands over to the command line, and knows nothing else."""

import sys

from vagrant.lane.cli import main

sys.exit(main(sys.argv[1:]))
