"""TmpfsStore: bytes on a tmpfs, which survive the death of the process but not a reboot.

An engine may be killed at any time, and another one goes on with its disks; the
initiator never hears of it. So whatever was acknowledged has to be in the kernel's
hands, not only in ours. What must not be on stable storage yet, because the data that
it speaks of may not be there, waits here: in a file of a directory that a reboot
empties. The boot is part of its name, so that it is never found after another one.

A file begins with a page that says which medium its bytes are about, and is locked for as
long as the process lives that puts bytes into it (docs/formats/notes.md). This module knows
neither what the bytes mean nor how a medium is told from another one.
"""

import errno
import fcntl
import glob
import logging
import os
import stat
import struct
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vscsihba.block import Views
from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.vectored import store, transfer

log = logging.getLogger(__name__)

DIRECTORY = (
    Path("/run/vscsihba") if os.geteuid() == 0 else Path(f"/dev/shm/vscsihba-{os.geteuid()}")  # noqa: S108  # a tmpfs
)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

MAGIC = b"VSCSINOT"
HEAD = 4096
"""Bytes before the content: the page that says what it is about."""
_FLAG = HEAD - 1
"""Place of the flag: the last byte of the head."""
_HEAD = struct.Struct("<8sII")
_PAGE = 4096
_LOCK = "hhqqi4x"  # struct flock of linux/fcntl.h


class TmpfsStore:
    """Bytes on a tmpfs, zeroes at first; grows as needed.

    Args:
        name: Unique for ever, such as a UUID.
        about: Names the medium of the bytes, up to 4,079 bytes; a file that is there keeps what it says.

    Attributes:
        about: The medium that the file names; None in a file of a release before this page was there.

    Raises:
        InUseError: Another process or disk has it open.
        HostError: The directory is another user's, or others may write to it.
        OSError: The directory cannot be used; nothing has changed.
    """

    def __init__(self, name: str, *, about: bytes = b"") -> None:
        self.path = _path(name)
        self._fd = _open_locked(self.path)
        with ExitStack() as failing:
            failing.callback(os.close, self._fd)
            if _is_empty(self._fd):
                failing.callback(self.path.unlink, missing_ok=True)
                self._begin(about)
            self._start, self.about, _ = _head(self._fd)
            failing.pop_all()

    def get(self, at: int, views: Views) -> None:
        """Fill `views` with bytes that were put there.

        Raises:
            OSError: They cannot be read; EIO if nothing was put there, or somebody has cut the file short.
        """
        done = transfer(lambda part, offset: os.preadv(self._fd, part, offset), self._start + at, views)
        if done < sum(map(len, views)):
            raise OSError(errno.EIO, f"{self.path} ends at byte {self._start + at + done}")

    def get_some(self, at: int, views: Views) -> int:
        """Fill `views` with one system call; return the number of bytes, fewer where nothing was put.

        Raises:
            OSError: They cannot be read.
        """
        return os.preadv(self._fd, views, self._start + at)

    def content(self) -> bytes:
        """Return everything that was put there.

        Raises:
            OSError: It cannot be read.
        """
        return _content(self._fd, self._start)

    def set_flag(self, *, on: bool) -> None:
        """Store the flag of the file, off at first: a word about all of its bytes, stored as a whole.

        Raises:
            OSError: It cannot be stored, or the file has no head; nothing has changed.
        """
        if not self._start:
            raise OSError(errno.EOPNOTSUPP, f"{self.path} has no head")
        if not os.pwrite(self._fd, bytes([on]), _FLAG):
            raise OSError(errno.EIO, f"{self.path} takes no more bytes")

    def reserve(self, at: int, length: int) -> None:
        """Set memory aside for a range, so that putting bytes there does not fail for lack of it.

        A range inside one page needs no memory set aside: it is put as a whole or not at all.

        Raises:
            OSError: There is none; the bytes are what they were.
        """
        start = self._start + at
        if length > 0 and start // _PAGE != (start + length - 1) // _PAGE:
            linux.allocate(self._fd, start, length)

    def put(self, at: int, data: bytes | memoryview) -> None:
        """Store bytes; once this returns, they survive.

        Raises:
            OSError: There is no room; nothing has changed. A mapping would end the process instead.
        """
        length = len(data)
        self.reserve(at, length)
        done = self.put_some(at, data)
        while done < length:
            done += self.put_some(at + done, memoryview(data)[done:])

    def put_some(self, at: int, data: bytes | memoryview) -> int:
        """Store bytes with one system call; return the number stored, one at least.

        Raises:
            OSError: There is no room; nothing has changed.
        """
        done = os.pwrite(self._fd, data, self._start + at)
        if data and not done:
            raise OSError(errno.EIO, f"{self.path} takes no more bytes")
        return done

    def put_views(self, at: int, views: Views) -> None:
        """Store the bytes of a scatter list, one view after the other.

        Raises:
            OSError: There is no room; some of the bytes may have been stored.
        """
        store(lambda part, offset: os.pwritev(self._fd, part, offset), self._start + at, views)

    def free(self, at: int, length: int) -> None:
        """Free the memory of a range, which reads as zeroes then.

        Raises:
            OSError: Its file system cannot do that; nothing has changed.
        """
        if length:
            linux.punch_hole(self._fd, self._start + at, length)

    def cut(self, at: int) -> None:
        """Drop all bytes from `at` on.

        Raises:
            OSError: That failed; nothing has changed.
        """
        os.ftruncate(self._fd, self._start + at)

    def remove(self) -> None:
        """Remove the file, and keep it open; a failure is only logged."""
        _remove(self.path)

    def discard(self) -> None:
        """Remove the file, or at least every byte that was put there, and keep it open.

        A later process must not find these bytes. If neither succeeds, that is only logged.
        """
        if not _remove(self.path):
            _empty(self.path, self._fd, self._start)

    def empty(self) -> None:
        """Remove every byte that was put there, and free its memory; a failure is only logged."""
        _empty(self.path, self._fd, self._start)

    def close(self, *, forget: bool) -> None:
        """Close the file, and remove it if nothing in it is needed any more."""
        if forget:
            self.remove()
        os.close(self._fd)

    def _begin(self, about: bytes) -> None:
        head = MAGIC + struct.pack("<II", zlib.crc32(about), len(about)) + about
        page = memoryview(head.ljust(HEAD, b"\0"))
        transfer(lambda part, offset: os.pwritev(self._fd, part, offset), 0, [page])


@dataclass(frozen=True, slots=True)
class Recalled:
    """Bytes that an earlier process has left.

    Attributes:
        path: The file.
        about: The medium that it names; None in a file of a release before this was noted.
        content: Its bytes.
        in_use: A living process has it open: it has left nothing yet.
        flag: The flag that the process has stored last.
    """

    path: Path
    about: bytes | None
    content: bytes
    in_use: bool
    flag: bool = False


def recall(name: str) -> Recalled | None:
    """Return the bytes stored under a name since the machine started, None if they were removed.

    Raises:
        HostError: Another user can write to the directory.
        OSError: It cannot be read.
    """
    if not _is_private():
        return None
    path = _path(name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        _check_own(path, os.fstat(fd))
        start, about, flag = _head(fd)
        return Recalled(path, about, _content(fd, start), in_use=_is_locked(fd), flag=flag)
    finally:
        os.close(fd)


def forget(name: str) -> None:
    """Remove the bytes stored under a name, if there are any: the file, or at least what is in it.

    A failure of both is only logged.

    Raises:
        HostError: Another user can write to the directory.
    """
    try:
        path = _path(name)
        if not _is_private() or _remove(path):
            return
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _empty(path, fd, _head(fd)[0])
        finally:
            os.close(fd)
    except OSError as error:
        log.warning("notes of %s stay until the machine restarts: %s", name, error.strerror)


def stored_names(pattern: str) -> list[str]:
    """Return the names under which bytes are stored since the machine started, by a pattern of fnmatch.

    Raises:
        HostError: Another user can write to the directory.
    """
    if not _is_private():
        return []
    start = _path("").name
    return sorted(path.name.removeprefix(start) for path in DIRECTORY.glob(f"{glob.escape(start)}{pattern}"))


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


def _open_locked(path: Path) -> int:
    """Open and lock a file."""
    while True:
        fd = _open_private(path)
        with ExitStack() as failing:
            failing.callback(os.close, fd)
            if not _try_lock(fd):
                raise InUseError(f"{path} is in use by another process or disk")
            if os.fstat(fd).st_nlink:  # else its last holder has removed it since it was opened here
                failing.pop_all()
                return fd


def _open_private(path: Path) -> int:
    """Open a file that no other user can write to; it is created if it is missing."""
    private_directory()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as failing:
        failing.callback(os.close, fd)
        _check_own(path, os.fstat(fd))
        failing.pop_all()
    return fd


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
    """Refuse a folder that another user can change, who would read and write our disks' data there."""
    if status.st_uid != os.geteuid():
        raise HostError(
            f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} who needs it",
            cure="have that user or root remove it",
        )
    # In a sticky directory others can make files of their own, and every file is checked itself.
    if status.st_mode & 0o022 and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        raise HostError(
            f"{path} may be written by other users (mode {stat.S_IMODE(status.st_mode):03o})",
            cure="remove it; it is created again with the right mode",
        )


def _head(fd: int) -> tuple[int, bytes | None, bool]:
    """Return the offset of the content of a file, the medium that it names, and its flag."""
    page = _read(fd, HEAD, 0)
    if not page.startswith(MAGIC):
        return 0, None, False
    if len(page) < HEAD:
        return HEAD, b"", False
    _, crc, length = _HEAD.unpack_from(page)
    about = page[_HEAD.size : _HEAD.size + length]
    if zlib.crc32(about) != crc:
        raise OSError(errno.EIO, "the head of a file of notes is damaged")
    return HEAD, about, page[_FLAG] > 0


def _is_empty(fd: int) -> bool:
    """Return whether a file is empty: its creator may have been killed before the head was whole."""
    page = _read(fd, HEAD, 0)
    return len(page) < HEAD and page.startswith(MAGIC[: len(page)])


def _content(fd: int, start: int) -> bytes:
    return _read(fd, os.fstat(fd).st_size - start, start)


def _read(fd: int, length: int, offset: int) -> bytes:
    """Return `length` bytes of a file, fewer if it ends before."""
    room = bytearray(max(0, length))
    if not room:
        return b""
    done = transfer(lambda part, at: os.preadv(fd, part, at), offset, [memoryview(room)])
    return bytes(room[:done])


def _try_lock(fd: int) -> bool:
    """Lock a file for as long as its open file description lives; return False if another one has it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_locked(fd: int) -> bool:
    asked = struct.pack(_LOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    return bool(struct.unpack(_LOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


def _remove(path: Path) -> bool:
    """Remove a file; return whether it is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s stays until the machine restarts: %s", path, error.strerror)
        return False
    return True


def _empty(path: Path, fd: int, start: int) -> None:
    """Cut off the content of a file."""
    try:
        os.ftruncate(fd, start)
    except OSError as error:
        log.warning("%s keeps what is out of date: %s", path, error.strerror)


def _path(name: str) -> Path:
    return DIRECTORY / f"{_BOOT_ID.read_text().strip()}.{name}"
