"""Memory barriers: the order of loads and stores, as seen by the kernel on another processor.

Python's 32-bit loads and stores through a memoryview are single aligned accesses. On
x86 these are ordered as written (Intel SDM vol. 3, 9.2.2: loads with loads, stores with
stores), as the ring needs it. Elsewhere membarrier(2) issues a full barrier on
every running thread of the process, the caller included.
"""

import ctypes
import os
import platform
from collections.abc import Callable

from vscsihba.errors import HostError

_MEMBARRIER = {"aarch64": 283, "riscv64": 283}
"""System call numbers (linux/unistd.h of the architecture)."""
_REGISTER_PRIVATE_EXPEDITED = 1 << 4
_PRIVATE_EXPEDITED = 1 << 3


def find_barrier(machine: str) -> Callable[[], None] | None:
    """Return the function that orders accesses on this kind of processor, None where the processor does.

    Raises:
        HostError: No barrier is known for it.
    """
    if machine in ("x86_64", "i686", "i386"):
        return None
    number = _MEMBARRIER.get(machine)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_int)
    syscall.restype = ctypes.c_long
    if number is None or syscall(number, _REGISTER_PRIVATE_EXPEDITED, 0, 0):
        raise HostError(f"no memory barrier is known for {machine}", cure="use x86_64 or aarch64")

    def membarrier() -> None:
        if syscall(number, _PRIVATE_EXPEDITED, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return membarrier


memory_barrier = find_barrier(platform.machine())
