"""An engine while the machine goes down: it outlives the killing of processes until its disks are free.

A file system on one of its disks can be unmounted, and written back, only as long as the engine serves it.
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
"""Seconds between two looks whether a disk is still used."""


def outlive_shutdown(process: Path = Path("/proc/self")) -> bool:
    """Have systemd-shutdown spare this process: let its command line begin with ``@``.

    systemd documents that mark for storage daemons (https://systemd.io/ROOT_STORAGE_DAEMONS; killall.c,
    ignore_proc()). The first byte of the arguments is overwritten where the kernel reads them; Python has
    its own copy, and finds its modules by the whole path, so that it cannot be started under that name.

    Returns:
        It is marked. Where it cannot be, a line in the log says so.
    """
    try:
        stat = (process / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        line = (process / "cmdline").read_bytes()
        address = int(stat[_ARG_START])
        if not line or ctypes.string_at(address, len(line)) != line:
            raise ValueError("the arguments are not where the kernel says")  # noqa: TRY301
        ctypes.memmove(address, b"@", 1)
    except (OSError, ValueError, IndexError) as error:
        log.warning("this process does not outlive a shutdown of the machine: %s", error)
        return False
    return True


def end_when_free(users: Callable[[], list[str]], end: Callable[[], None], pause: float = _PAUSE) -> None:
    """Call `end` as soon as nobody uses the disks; return at once.

    Args:
        users: Returns who uses them.
        end: Called on a thread of its own, once.
        pause: Seconds between two looks.

    Raises:
        OSError: There is no room for another thread.
    """

    def step() -> bool:
        if users():
            time.sleep(pause)
            return True
        end()
        return False

    start(VitalThread(partial(repeat, step, "waiting until the disks are free"), "end"))
