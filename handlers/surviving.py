"""Surviving: bytes that are there after the process was killed, but not after the machine was.

An engine may be killed at any time, and another one goes on with its disks; the
initiator never hears of it. So whatever was acknowledged has to be in the kernel's
hands, not only in ours. What must not be on stable storage yet, because the data that
it speaks of may not be there, waits here: in a file of a directory that a reboot
empties. The boot is part of its name, so that it is never found after another one.
"""

import os
from pathlib import Path

DIRECTORY = (
    Path("/run/vscsihba") if os.geteuid() == 0 else Path(f"/dev/shm/vscsihba-{os.geteuid()}")  # noqa: S108  # a tmpfs
)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Surviving:
    """A row of bytes, zeroes at first, as long as it has to be.

    Args:
        name: Unique for ever, such as a UUID.

    Raises:
        OSError: The directory cannot be used.
    """

    def __init__(self, name: str) -> None:
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = _path(name)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def put(self, at: int, data: bytes) -> None:
        """Store bytes; once this returns, they survive.

        Raises:
            OSError: There is no room. A mapping would end the process instead.
        """
        while data:
            done = os.pwrite(self._fd, data, at)
            data, at = data[done:], at + done

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
