"""The file or device at a path: whether it can be a disk, opening and locking it.

Everything that can be wrong with a path becomes one line that names it here. What is
done with the descriptor afterwards is not this module's business.
"""

import errno
import fcntl
import os
import shlex
import stat
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vscsihba.block import Geometry
from vscsihba.errors import HostError, InUseError, NoSuchFileError, UsageError, VscsihbaError
from vscsihba.handlers.file.image_formats import image_format
from vscsihba.handlers.shared import linux

_PAGE = 4096
"""The page cache writes a file in these; anything smaller is read, changed and written."""


@dataclass(frozen=True, slots=True)
class Medium:
    """The file or device that an open descriptor refers to.

    Attributes:
        size: Bytes.
        is_device: It is a block device, not a regular file.
        block_size: The logical block that it likes to be seen with, in bytes.
        physical_block_size: Unit of its writes, in bytes.
        optimal_io: The transfer that it likes best, in bytes, 0 if it has no wish.
        unmap_granularity: Bytes below which deallocating frees nothing.
        rotational: Seeks cost.
        image_format: The format of a disk image that is not raw; empty if it seems to be raw.
    """

    size: int
    is_device: bool = False
    block_size: int = 512
    physical_block_size: int = _PAGE
    optimal_io: int = 0
    unmap_granularity: int = 0
    rotational: bool = False
    image_format: str = ""

    def geometry(
        self, path: str, block_size: int | None, physical_block_size: int | None, *, padded: bool = False
    ) -> Geometry:
        """Return the geometry of the disk, with the block sizes of the options, if any.

        Args:
            path: For messages.
            block_size: Logical block in bytes; None for the medium's.
            physical_block_size: Physical block in bytes; None for the medium's.
            padded: Let the last block be one that the medium has in part only.

        Raises:
            UsageError: The size does not suit a disk, or not these blocks.
        """
        logical = block_size or self.block_size
        whole = -(-self.size // logical) * logical
        if whole != self.size and not padded:
            raise UsageError(
                f"{path}: the size {self.size} is not a multiple of the block size {logical}",
                cure=_cure_for_size(path, whole, is_device=self.is_device),
            )
        try:
            return Geometry(
                size=whole,
                block_size=logical,
                physical_block_size=physical_block_size or max(self.physical_block_size, logical),
                optimal_io=0 if self.optimal_io % logical else self.optimal_io,
            )
        except UsageError as error:
            raise UsageError(f"{path}: {error.message}", cure=error.cure) from error


def measure(fd: int, path: str) -> Medium:
    """Examine the file or device of an open descriptor.

    Raises:
        UsageError: It is neither a regular file nor a block device.
    """
    status = os.fstat(fd)
    check_kind(status.st_mode, path)
    if stat.S_ISREG(status.st_mode):
        name = image_format(fd, status.st_size)
        return Medium(status.st_size, unmap_granularity=status.st_blksize, image_format=name)
    logical, physical, optimal = linux.block_sizes(fd)
    size = os.lseek(fd, 0, os.SEEK_END)
    return Medium(
        size=size,
        is_device=True,
        block_size=logical,
        physical_block_size=physical,
        optimal_io=optimal,
        unmap_granularity=linux.discard_granularity(fd),
        rotational=linux.is_rotational(fd),
        image_format=image_format(fd, size),
    )


def check_kind(mode: int, path: str) -> None:
    """Refuse anything but a regular file or a block device, by its ``st_mode``."""
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory", cure="name a file or a block device")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError(f"{path} is neither a file nor a block device")


def look(path: str, *, read_only: bool) -> Medium | None:
    """Examine the file or device at `path`, without keeping it open; None if there is none.

    Raises:
        UsageError: It can be no disk, or may not be opened that way.
    """
    try:
        # The type comes first: merely opening a tape or a pipe can do something.
        check_kind(Path(path).stat().st_mode, path)
        if not read_only and not os.access(path, os.W_OK):
            raise _not_writable(path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explain(path, error) from error
    try:
        return measure(fd, path)
    finally:
        os.close(fd)


def claim(path: str, *, read_only: bool, shared: bool) -> int:
    """Open `path` and lock it, `shared` or for oneself; return the descriptor.

    Closing the descriptor, or dying, unlocks. A block device that is written is held
    exclusively, so that it cannot be mounted meanwhile, and is refused if it is mounted
    (``O_EXCL``, open(2)).

    Raises:
        UsageError: There is nothing to open, or it may not be opened that way.
        InUseError: Somebody else holds it.
        HostError: The system refused otherwise.
    """
    flags = os.O_RDONLY if read_only else os.O_RDWR
    try:
        mode = Path(path).stat().st_mode
        check_kind(mode, path)
        if stat.S_ISBLK(mode) and not read_only:
            flags |= os.O_EXCL
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise explain(path, error) from error
    with ExitStack() as failing:
        failing.callback(os.close, fd)
        lock(fd, path, shared=shared)
        failing.pop_all()
    return fd


def lock(fd: int, path: str, *, shared: bool) -> None:
    """Lock a whole file for as long as its open file description lives (fcntl(2), OFD locks).

    A lock that is held already is changed.

    Raises:
        InUseError: Somebody else holds one that does not go with it; nothing has changed.
        HostError: The file system has no locks.
    """
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InUseError(f"{path} is in use as a disk", cure="remove that disk first") from error
        raise HostError(f"{path} cannot be locked: {error.strerror}") from error


def in_utf8(path: str) -> str:
    """Return a path as it is, or one that is not valid UTF-8 as the hexadecimal digits of its bytes."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.hex()


def check_room(path: str) -> None:
    """Refuse a name for which no file can be made.

    Raises:
        UsageError: Its directory does not exist, or may not be changed.
    """
    directory = Path(path).parent
    if not directory.is_dir():
        raise UsageError(f"{path}: there is no directory {directory}", cure="create it first")
    if not os.access(directory, os.W_OK):
        raise UsageError(f"{path}: directory {directory} may not be changed", cure="grant it")


def missing(path: str) -> UsageError:
    """Return the error for a path that names nothing."""
    return NoSuchFileError(f"{path}: no such file", cure='create it, or set its "size"')


def lost(path: str, what: str = "file") -> UsageError:
    """Return the error for a medium that was made before and is not there now."""
    return UsageError(
        f"{path}: no such {what}, and only adding the LUN makes one",
        cure="mount its file system or bring it back; for a new, empty one remove the LUN and add it again",
    )


def explain(path: str, error: OSError) -> VscsihbaError:
    """Turn an error of a system call into one line about `path`."""
    match error.errno:
        case errno.ENOENT:
            return missing(path)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return _not_writable(path)
        case errno.EBUSY:
            return InUseError(f"{path} is in use: it is mounted, or another device is made of it")
        case _:
            return HostError(f"{path}: {error.strerror}")


def _cure_for_size(path: str, whole: int, *, is_device: bool) -> str:
    if is_device:
        return 'use a smaller "block_size"'
    return f'enlarge it (truncate -s {whole} {shlex.quote(path)}), or use "read_only": true'


def _not_writable(path: str) -> UsageError:
    return UsageError(f"{path} may not be written", cure='grant it, or say "read_only": true')
