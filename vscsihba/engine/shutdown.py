"""An engine during a shutdown of the machine: it must not be killed before its disks are free.

A file system on one of its disks can be written back and unmounted only as long as the engine serves it.
"""

import ctypes
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from vscsihba.threads import VitalThread, repeat, start

log = logging.getLogger(__name__)

_ARG_START: Final = 45
"""Fields of /proc/PID/stat between the name and arg_start (proc(5), field 48)."""

_PAUSE: Final = 0.5
"""Seconds between two checks whether a disk is still in use."""


def outlive_shutdown(process: Path = Path("/proc/self")) -> bool:
    """Have systemd-shutdown spare this process, whose command line then begins with ``@``.

    systemd documents that mark for storage daemons (https://systemd.io/ROOT_STORAGE_DAEMONS; killall.c,
    ignore_proc()). This function overwrites the first byte of the arguments where the kernel reads them.
    Python uses its own copy; it cannot be started under such a name, since it finds its modules by the path.

    Returns:
        Whether the process is marked. If not, the reason is logged.
    """
    try:
        stat = (process / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        line = (process / "cmdline").read_bytes()
        address = int(stat[_ARG_START])
        if not line or ctypes.string_at(address, len(line)) != line:
            raise ValueError("the arguments are not at the address of /proc/self/stat")  # noqa: TRY301
        ctypes.memmove(address, b"@", 1)
    except (OSError, ValueError, IndexError) as error:
        log.warning("a shutdown of the machine may kill this process before its disks are free: %s", error)
        return False
    return True


def end_when_free(users: Callable[[], list[str]], end: Callable[[], None], pause: float = _PAUSE) -> None:
    """Call `end` as soon as no disk is in use; return at once.

    Args:
        users: Returns the users of the disks.
        end: Called once, on a thread of its own.
        pause: Seconds between two checks.

    Raises:
        OSError: The machine has no room for another thread.
    """

    def step() -> bool:
        if users():
            time.sleep(pause)
            return True
        end()
        return False

    start(VitalThread(partial(repeat, step, "waiting until the disks are free"), "end"))
