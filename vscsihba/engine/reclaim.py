"""Protection from memory reclaim that waits for a disk which is served by this very process.

To free memory, the kernel writes dirty pages to disks, ours among them. If this process needs memory then,
it must not wait for the same reclaim (PR_SET_IO_FLUSHER, prctl(2): its allocations start no I/O, and it is
not throttled for the dirty pages of others), nor for a page of its own that was swapped out, perhaps to a
disk of ours (mlockall(2)).
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
    """Protect this process, as far as it may; a line in the log says where it may not.

    To be called by the main thread before there are others, which inherit it, and before the process gives
    up CAP_SYS_RESOURCE.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0):
        log.info("no PR_SET_IO_FLUSHER: %s", os.strerror(ctypes.get_errno()))
    if not _may_lock():
        log.info("pages may be swapped out: RLIMIT_MEMLOCK is limited, and CAP_IPC_LOCK is missing")
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        log.info("pages may be swapped out: %s", os.strerror(ctypes.get_errno()))


def _may_lock() -> bool:
    """Tell whether memory can be locked without a limit, at which later allocations would fail."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        lines = dict(line.split(":\t", 1) for line in _STATUS.read_text().splitlines() if ":\t" in line)
        return bool(int(lines["CapEff"], 16) >> _CAP_IPC_LOCK & 1)
    except (OSError, KeyError, ValueError):
        return False
