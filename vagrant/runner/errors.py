"""The error of a VM that could not be run, and the exit codes of the runner."""

TIMED_OUT = 124
"""Exit code after the time limit, as for timeout(1)."""
NOT_RUN = 125
"""Exit code of a VM that could not be started or died before its command ended, as for env(1)."""


class VmError(Exception):
    """The VM could not be run; the message has the reason and, if known, the cure."""
