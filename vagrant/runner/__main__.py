"""`python -m vagrant.runner`: calls the command line of `cli`."""

import sys

from vagrant.runner.cli import main

sys.exit(main(sys.argv[1:]))
