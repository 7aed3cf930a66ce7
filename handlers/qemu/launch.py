"""Start a program that ends with the process that has started it, even if that is killed.

Run as a script: ``launch.py PID PROGRAM ARGUMENT0 [ARGUMENT ...]``. PID is the process that starts it. The
kernel kills the program when the *thread* that has started it ends (prctl(2), PR_SET_PDEATHSIG), so that
thread has to outlive the program.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(pid: int, program: str, arguments: list[str]) -> None:
    """Become `program`, unless the process `pid` is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == pid:  # else it has died before the call above, which then does not see it
        os.execv(program, arguments)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
