"""Capabilities of an engine: before it serves, it drops those that it does not need, for good.

It stays root, the owner of the files in configfs and /sys and of the rings' device nodes.
"""

import ctypes
import os
from typing import Final

from vscsihba.errors import HostError

KEPT: Final = {
    "CAP_DAC_OVERRIDE": 1,  # images of other users
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_IPC_LOCK": 14,  # key material must not be swapped out
    "CAP_SYS_RAWIO": 17,  # SCSI commands to the device of the handler sg
}
"""Capabilities that an engine keeps (linux/capability.h)."""

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3: Final = 0x20080522
_LAST: Final = 63


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop() -> None:
    """Drop the capabilities that are not in `KEPT`; to be called before the process has other threads.

    Raises:
        HostError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "forgo new privileges")
    for number in range(_LAST + 1):
        if number not in KEPT.values():
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails for numbers that the kernel does not know
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    _check(libc.capget(ctypes.byref(header), sets), "read capabilities")
    for half, kept in enumerate(sets):
        wanted = sum(1 << (number - 32 * half) for number in KEPT.values() if number // 32 == half)
        kept.permitted &= wanted
        kept.effective = kept.permitted
        kept.inheritable = 0
    _check(libc.capset(ctypes.byref(header), sets), "drop capabilities")


def _check(result: int, what: str) -> None:
    if result:
        raise HostError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
