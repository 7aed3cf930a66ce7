"""An engine process, started by the service: ``python -m vscsihba.engine ID``."""

import sys

from vscsihba.engine.process import main

sys.exit(main(sys.argv[1:]))
