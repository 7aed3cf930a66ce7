"""Claims: a name that only one open disk of this machine has at a time, such as the UUID of a container.

A copy of a medium carries the UUID of the original. Were both disks at once, they would have one serial
number and one NAA designator, and multipath would take them for two paths to one disk.
"""

import fcntl
import hashlib
import os
import struct
from contextlib import ExitStack

from vscsihba.errors import InUseError
from vscsihba.handlers.shared.tmpfs_store import private_directory

_LOCK = "hhqqi4x"  # struct flock of linux/fcntl.h


class NameClaim:
    """A name, for as long as the context is entered; the end of the process ends the claim as well.

    Args:
        name: Any text.
        shared: Others that share it may have it too.
        taken: Raised when another disk has the name.
        place: Of several that share it, those at another place are refused.
    """

    def __init__(self, name: str, *, shared: bool, taken: InUseError, place: str = "") -> None:
        self._name = name
        self._shared = shared
        self._taken = taken
        self._place = place
        self._fd = -1

    def __enter__(self) -> None:
        """Have the name.

        Raises:
            InUseError: Another disk has it.
            HostError, OSError: The directory for claims cannot be used.
        """
        path = private_directory() / f"claim.{hashlib.sha256(self._name.encode()).hexdigest()[:32]}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with ExitStack() as failing:
            failing.callback(os.close, fd)
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._taken from error
            if self._shared and not _is_alone(fd, self._place):
                raise self._taken
            failing.pop_all()
        self._fd = fd

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        fd, self._fd = self._fd, -1
        os.close(fd)


def _is_alone(fd: int, place: str) -> bool:
    """Lock a byte that stands for the place; return whether no other place's byte is locked.

    Locked first and looked around then: of two that come at once both may be refused, never none.
    """
    own = int.from_bytes(hashlib.sha256(place.encode()).digest()[:7], "big")
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte_range(fcntl.F_RDLCK, own, 1))
    around = [_byte_range(fcntl.F_WRLCK, 0, own)] if own else []
    around.append(_byte_range(fcntl.F_WRLCK, own + 1, 0))
    locks = [struct.unpack(_LOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, each)) for each in around]
    return all(kind == fcntl.F_UNLCK for kind, *_ in locks)


def _byte_range(kind: int, first: int, length: int) -> bytes:
    return struct.pack(_LOCK, kind, os.SEEK_SET, first, length, 0)
