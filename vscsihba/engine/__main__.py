"""An engine process, as the service starts it: ``python -m vscsihba.engine ID``."""

import sys

from vscsihba.engine.process import main

sys.exit(main(sys.argv[1:]))
