"""The entry points of the programs: a Ctrl-C while their modules are imported ends them without a traceback.

Imports nothing but `signal`, before it is safe.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_end() -> Iterator[None]:
    """Return a context in which a Ctrl-C ends the process at once, as long as there is nothing to undo.

    Python would raise KeyboardInterrupt, in the middle of an import, which may print a traceback and go on.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def vscsihba() -> int:
    """Run the program ``vscsihba``."""
    with interrupts_end():
        from vscsihba.cli.main import main  # noqa: PLC0415 - see above
    return main()


def vscsitarget() -> int:
    """Run the program ``vscsitarget``."""
    with interrupts_end():
        from vscsihba.cli.vscsitarget import main  # noqa: PLC0415 - see above
    return main()
