"""Surviving: bytes that are there after the process was killed, but not after the machine was.

An engine may be killed at any time, and another one goes on with its disks; the
initiator never hears of it. So whatever was acknowledged has to be in the kernel's
hands, not only in ours. What must not be on stable storage yet, because the data that
it speaks of may not be there, waits here: in a file of a directory that a reboot
empties. The boot is part of its name, so that it is never found after another one.
"""

import fcntl
import os
import stat
from contextlib import ExitStack
from pathlib import Path

from vscsihba.block import Buffer, Views
from vscsihba.errors import HostError, InUseError
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
        HostError: The directory is another user's, or others may write to it.
        OSError: The directory cannot be used.
    """

    def __init__(self, name: str) -> None:
        private_directory()
        self._path = _path(name)
        with ExitStack() as failing:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            failing.callback(os.close, self._fd)
            _check_own(self._path, os.fstat(self._fd))
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUseError(f"{self._path} is in use by another process or disk") from error
            failing.pop_all()

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


def private_directory() -> Path:
    """Return the directory, which nobody else can write to; it is created if it is missing.

    Raises:
        HostError: Another user created it, or others may write to it.
        OSError: It cannot be created.
    """
    if not _is_private():
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        _is_private()
    return DIRECTORY


def _is_private() -> bool:
    """Return whether the directory exists; refuse one that another user can change."""
    try:
        status = DIRECTORY.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise HostError(f"{DIRECTORY} is not a directory", cure="remove it")
    _check_own(DIRECTORY, status)
    return True


def _check_own(path: Path, status: os.stat_result) -> None:
    """Refuse what another user can change, who would read and write our disks' data there."""
    if status.st_uid != os.geteuid():
        raise HostError(
            f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} who needs it",
            cure="have that user or root remove it",
        )
    if status.st_mode & 0o022:
        raise HostError(
            f"{path} may be written by other users (mode {stat.S_IMODE(status.st_mode):03o})",
            cure="remove it; it is created again with the right mode",
        )


def recall(name: str) -> bytes:
    """Return what was put under a name since the machine started, nothing if it was forgotten.

    Raises:
        HostError: Another user can write to the directory.
        OSError: It cannot be read.
    """
    if not _is_private():
        return b""
    try:
        return _path(name).read_bytes()
    except FileNotFoundError:
        return b""


def forget(name: str) -> None:
    """Remove what was put under a name, if there is anything.

    Raises:
        HostError: Another user can write to the directory.
    """
    if _is_private():
        _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return DIRECTORY / f"{_BOOT_ID.read_text().strip()}.{name}"
