"""What can go wrong with the VM itself, as opposed to the command inside. Knows no cause in particular."""

TIMED_OUT = 124
"""Exit code for a time limit that was reached, as timeout(1) has it."""
NOT_RUN = 125
"""Exit code for a VM that could not be started or died before its command ended, as env(1) has it."""


class VmError(Exception):
    """The VM could not be run; the message names the cause and, where there is one, the cure."""
