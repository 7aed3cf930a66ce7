"""The file of a journal, on a tmpfs: it outlives processes, not a reboot.

Knows the device that a file belongs to, not the contents of the table.
"""

import hashlib
import mmap
import os
import struct
import zlib
from pathlib import Path

from vscsihba.errors import HostError
from vscsihba.tcmu.journal import DISTRUSTED, Journal
from vscsihba.tcmu.record import SIZE

_HEADER = struct.Struct("=8sI32s")
"""magic, version of the layout, hash of the device's identity; a CRC of these follows."""
_CRC = struct.Struct("=I")
_MAGIC = b"vscsihba"
_VERSION = 1


class JournalFile:
    """A journal in a mapped file, used only by the process that has the device open.

    A file of another device (an older one of the same name) is replaced by an empty one. One whose
    device is unknown is replaced too, but marked: its records are lost, so
    the ring must be reset (`vscsihba.tcmu.journal.DISTRUSTED`).

    Args:
        path: The file; it is made if necessary, and so is its folder.
        identity: A unique name of the device.

    Raises:
        HostError: The file cannot be made, or there is no space for it.
    """

    def __init__(self, path: Path, identity: str) -> None:
        header = _HEADER.pack(_MAGIC, _VERSION, hashlib.sha256(identity.encode()).digest())
        self.path = path
        try:
            self._map = _open(path, header)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", cure="free some memory or space there") from error
        # A forked child must not write to it.
        self._map.madvise(mmap.MADV_DONTFORK)
        self._memory = memoryview(self._map)
        self.journal = Journal(self._memory[:])

    def close(self) -> None:
        """Unmap; the file stays for a successor. Twice is harmless."""
        self.journal.release()
        self._memory.release()
        self._map.close()


def discard(path: Path) -> None:
    """Remove the journal of a device that was removed, or whose ring was reset while it was not served.

    Raises:
        HostError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def _open(path: Path, header: bytes) -> mmap.mmap:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    signed = header + _CRC.pack(zlib.crc32(header))
    existing = _read_header(path)
    if existing != signed:
        _make(path, signed, distrusted=existing is not None and not _is_older(existing))
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)


def _read_header(path: Path) -> bytes | None:
    """Return the header of a file, empty if its size is wrong, None if the file does not exist."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        whole = os.fstat(fd).st_size == SIZE
        return os.pread(fd, _HEADER.size + _CRC.size, 0) if whole else b""
    finally:
        os.close(fd)


def _is_older(header: bytes) -> bool:
    """Return whether a header is valid and of this layout, hence one of another device."""
    if len(header) != _HEADER.size + _CRC.size:
        return False
    magic, version, _ = _HEADER.unpack_from(header)
    (crc,) = _CRC.unpack_from(header, _HEADER.size)
    return (magic, version, crc) == (_MAGIC, _VERSION, zlib.crc32(header[: _HEADER.size]))


def _make(path: Path, header: bytes, *, distrusted: bool) -> None:
    """Replace the file by an empty table, atomically.

    Its space is allocated now: a store into a page that a full tmpfs cannot allocate is a SIGBUS.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, SIZE)
        os.pwrite(fd, header, 0)
        if distrusted:
            _mark(fd)
        new.replace(path)
    finally:
        os.close(fd)


def _mark(fd: int) -> None:
    with mmap.mmap(fd, SIZE) as table:
        journal = Journal(memoryview(table))
        journal.move_to(DISTRUSTED)
        journal.release()
