"""`python -m vagrant.runner`: hands over to the command line, and knows nothing else."""

import sys

from vagrant.runner.cli import main

sys.exit(main(sys.argv[1:]))
