"""Protection from a deadlock in memory reclaim: reclaim may wait for a disk that this very process serves.

To free memory, the kernel writes dirty pages to disks, including those of vscsihba. An engine that needs
memory meanwhile must not wait for the same reclaim: with PR_SET_IO_FLUSHER (prctl(2)) its allocations start
no I/O, and it is not throttled for the dirty pages of others. Nor must it wait for a page of its own that was
swapped out, perhaps to one of its disks: hence mlockall(2).
"""

import ctypes
import logging
import os
import resource
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_PR_SET_IO_FLUSHER: Final = 57
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK: Final = 14
_STATUS: Final = Path("/proc/self/status")


def protect() -> None:
    """Protect this process; where it lacks the privilege, log that.

    To be called by the main thread before it starts others, which inherit the setting, and before the process
    drops CAP_SYS_RESOURCE.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0):
        log.info("no PR_SET_IO_FLUSHER: %s", os.strerror(ctypes.get_errno()))
    if not _may_lock():
        log.info("pages may be swapped out: RLIMIT_MEMLOCK is limited, and CAP_IPC_LOCK is missing")
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        log.info("pages may be swapped out: %s", os.strerror(ctypes.get_errno()))


def _may_lock() -> bool:
    """Return whether the process may lock memory without a limit, at which later allocations would fail."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        lines = dict(line.split(":\t", 1) for line in _STATUS.read_text().splitlines() if ":\t" in line)
        return bool(int(lines["CapEff"], 16) >> _CAP_IPC_LOCK & 1)
    except (OSError, KeyError, ValueError):
        return False
