"""Surviving: bytes that are there after the process was killed, but not after the machine was.

An engine may be killed at any time, and another one goes on with its disks; the
initiator never hears of it. So whatever was acknowledged has to be in the kernel's
hands, not only in ours. What must not be on stable storage yet, because the data that
it speaks of may not be there, waits here: in a file of a directory that a reboot
empties. The boot is part of its name, so that it is never found after another one.
"""

import fcntl
import os
from pathlib import Path

from vscsihba.block import Buffer, Views
from vscsihba.errors import InUseError
from vscsihba.handlers.vectored import transfer

DIRECTORY = (
    Path("/run/vscsihba") if os.geteuid() == 0 else Path(f"/dev/shm/vscsihba-{os.geteuid()}")  # noqa: S108  # a tmpfs
)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Surviving:
    """A row of bytes, zeroes at first, as long as it has to be.

    Args:
        name: Unique for ever, such as a UUID.

    Raises:
        InUseError: Somebody has it open.
        OSError: The directory cannot be used.
    """

    def __init__(self, name: str) -> None:
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = _path(name)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise InUseError(f"{self._path} is in use by another process or disk") from error

    def get(self, at: int, views: Views) -> None:
        """Fill `views` with what was put there, and zeroes where nothing was.

        Raises:
            OSError: It cannot be read.
        """
        done = transfer(lambda part, offset: os.preadv(self._fd, part, offset), at, views)
        Buffer(views).zero(done)

    def put(self, at: int, data: bytes | memoryview) -> None:
        """Store bytes; once this returns, they survive.

        Raises:
            OSError: There is no room. A mapping would end the process instead.
        """
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._fd, rest, at)
            rest, at = rest[done:], at + done

    def close(self, *, forget: bool) -> None:
        """Close the file, and remove it if nothing in it is needed any more."""
        os.close(self._fd)
        if forget:
            self._path.unlink()


def recall(name: str) -> bytes:
    """Return what was put under a name since the machine started, nothing if it was forgotten."""
    try:
        return _path(name).read_bytes()
    except FileNotFoundError:
        return b""


def forget(name: str) -> None:
    """Remove what was put under a name, if there is anything."""
    _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return DIRECTORY / f"{_BOOT_ID.read_text().strip()}.{name}"
