"""Copies that share storage: by FICLONE, else copy_file_range(2), else by reads and writes.

A clone takes no time and no room, and each side keeps its own bytes from then on. XFS
(made with reflink=1, its default), btrfs, bcachefs, OCFS2 and overlays on them can. This
module knows the three ways; what is copied, and when that is safe, is the caller's knowledge.
"""

import errno
import fcntl
import os
import struct
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from vscsihba.handlers.file.extents import holes_and_data
from vscsihba.handlers.shared.durable import sync_directory
from vscsihba.handlers.shared.vectored import store

# linux/fs.h; _IOW(0x94, 9, int), _IOW(0x94, 13, struct file_clone_range).
_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D

_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EBADF, errno.ENOSYS})
"""No such thing here, two file systems, ends that are not whole blocks."""
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""A file system that has no hard links."""
_AT_ONCE = 1 << 30
_BY_HAND = 1 << 20


def clone(source: int, target: int) -> bool:
    """Make `target` a copy of `source` that shares its storage (FICLONE).

    Args:
        source: Descriptor, open for reading.
        target: Descriptor of a file on the same file system, open for writing.

    Returns:
        Whether that was possible here; if not, nothing has changed.

    Raises:
        OSError: It failed otherwise, such as with ENOSPC.
    """
    return _done(target, _FICLONE, source)


def clone_range(source: int, source_offset: int, length: int, target: int, target_offset: int) -> bool:
    """Make `target` share a range of `source` (FICLONERANGE); its ends must lie on blocks of the file system.

    Returns:
        Whether that was possible here; if not, nothing has changed.

    Raises:
        OSError: It failed otherwise.
    """
    return _done(target, _FICLONERANGE, struct.pack("=qQQQ", source, source_offset, length, target_offset))


def copy_range(source: int, source_offset: int, length: int, target: int, target_offset: int) -> None:
    """Make a range of `target` equal to a range of `source`, in the cheapest way that there is.

    Both files exist as far as that; the range of `source` is not being written.

    Raises:
        OSError: It cannot be read or written; EIO if `source` ends before.
    """
    if clone_range(source, source_offset, length, target, target_offset):
        return
    done = 0
    while done < length:
        count = min(length - done, _AT_ONCE)
        moved = _in_kernel(source, source_offset + done, count, target, target_offset + done)
        if moved is None:
            moved = _by_hand(source, source_offset + done, count, target, target_offset + done)
        if not moved:
            raise OSError(errno.EIO, f"the file to copy from ends at byte {source_offset + done}")
        done += moved


def copy_file(source: int, path: Path) -> bool:
    """Make a file that is a copy of another one, holes included; it is there wholly, or not at all.

    Args:
        source: Descriptor of a regular file that nobody writes to meanwhile.
        path: A name that is free. A crash may leave ``NAME.*.part`` behind, which nobody needs.

    Returns:
        Whether the two share their storage.

    Raises:
        FileExistsError: The name is taken.
        OSError: The copy cannot be made; nothing is left of it then.
    """
    target, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    part = Path(name)
    try:
        shared = clone(source, target)
        if not shared:
            _copy_data(source, target)
        os.fsync(target)
        publish(part, path)
    finally:
        os.close(target)
        with suppress(OSError):  # a file that nobody needs
            part.unlink(missing_ok=True)
    return shared


def publish(part: Path, path: Path) -> None:
    """Give a file that is on stable storage its name, which is on stable storage then, too.

    Args:
        part: Another name in the same directory, which may stay.
        path: The name.

    Raises:
        FileExistsError: The name is taken.
        OSError: The system refused; the file does not have the name then.
    """
    _link(part, path)
    with ExitStack() as failing:
        failing.callback(path.unlink)
        sync_directory(path.parent)
        failing.pop_all()


def _link(part: Path, path: Path) -> None:
    """Give a file another name, unless that is taken."""
    try:
        path.hardlink_to(part)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        part.rename(path)


def _copy_data(source: int, target: int) -> None:
    """Copy the data between holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        for status in holes_and_data(source, at, size):
            if status.allocated:
                copy_range(source, status.extent.offset, status.extent.length, target, status.extent.offset)
            at = status.extent.end


def _done(target: int, request: int, argument: int | bytes) -> bool:
    try:
        fcntl.ioctl(target, request, argument)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _in_kernel(source: int, source_offset: int, count: int, target: int, target_offset: int) -> int | None:
    """Copy by copy_file_range(2); return the bytes copied, None if it is not supported."""
    try:
        return os.copy_file_range(source, target, count, source_offset, target_offset)
    except OSError as error:
        if error.errno in _CANNOT:
            return None
        raise


def _by_hand(source: int, source_offset: int, count: int, target: int, target_offset: int) -> int:
    """Copy a part by read and write; return the bytes copied."""
    data = os.pread(source, min(count, _BY_HAND), source_offset)
    store(lambda views, at: os.pwritev(target, views, at), target_offset, [memoryview(data)])
    return len(data)
