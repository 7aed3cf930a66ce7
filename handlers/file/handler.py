"""file: a raw image or a block device as a disk.

Sparse files stay sparse: what is discarded becomes a hole, and holes show as
deallocated. A flush is fdatasync(2), FUA is ``RWF_DSYNC``. This module knows what the
verbs are made of; `options` what can be asked of a file, `path` what a path may be,
`inline` what may block.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from vscsihba.block import Buffer, Capabilities, ExtentStatus, Geometry, Space, Views
from vscsihba.errors import MediumError
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.file import making as file_making
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.direct import DirectFile
from vscsihba.handlers.file.extents import holes_and_data
from vscsihba.handlers.file.inline import Expected, inline_verbs
from vscsihba.handlers.file.options import FileOptions
from vscsihba.handlers.file.sync import Syncs
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.block_identity import block_identity, lasting_path
from vscsihba.handlers.shared.undo import Undo
from vscsihba.handlers.shared.vectored import store, transfer

log = logging.getLogger(__name__)

_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.EBUSY)


class FileHandler(Handler):
    """A raw image or a block device."""

    name = "file"
    example = "file:/srv/disk.img;direct=true"
    workers = 8

    class Options(FileOptions, kw_only=True):
        """Options of the file handler."""

    options: Options

    def __init__(self, options: Options, *, shared: bool | None = None) -> None:
        """Make a handler for a file.

        Args:
            options: Which file, and how.
            shared: Lock it so that others may read it; by default if it is only read here.
        """
        super().__init__(options)
        self._shared = options.read_only if shared is None else shared
        self._fd = -1
        self._padding = 0
        self._is_device = False
        self._identity = ""
        self._syncs = Syncs(options.path)
        self._direct: DirectFile | None = None

    def check(self) -> None:
        """Check that there is a file that can be a disk, or room to make one."""
        medium = self.options.medium(make=self.may_make)
        self.options.shape(medium)
        self.options.alignment(medium)

    def open(self) -> None:
        """Create the file if asked to, lock it, and probe its capabilities."""
        path, read_only = self.options.path, self.options.read_only
        # A link to a file that is missing counts as missing.
        missing = not os.path.exists(path)  # noqa: PTH110
        made = missing and self.options.make(make=self.may_make)
        if not missing and self.may_make and (self.options.copy_of or self.options.size is not None):
            file_making.keep(path)
        self._fd = file_path.claim(path, read_only=read_only, shared=self._shared)
        with ExitStack() as failing:
            failing.callback(self.close)
            if made:
                failing.callback(os.unlink, os.path.realpath(path))
            medium = file_path.measure(self._fd, path)
            self.options.check_format(medium)
            if (enlarged := self.options.enlarged(medium, make=self.may_make)) != medium:
                self.options.shape(enlarged)
                file_making.enlarge(self._fd, path, enlarged.size)
                medium = enlarged
            self._is_device = medium.is_device
            self._identity = self._name()
            self._warn_of_name()
            self._geometry = self.options.shape(medium)
            self._padding = self._geometry.size - medium.size
            self._capabilities = self._ask(medium)
            self._expected = Expected(0 if medium.is_device else medium.size)
            if self.options.direct:
                self._direct = DirectFile(self._fd, path, self.options.alignment(medium))
            self._inline = self._ask_inline()
            failing.pop_all()

    def close(self) -> None:
        """Unlock and close the file."""
        direct, self._direct = self._direct, None
        fd, self._fd = self._fd, -1
        with ExitStack() as closing:
            closing.callback(os.close, fd)
            if direct is not None:
                closing.callback(direct.close)

    @property
    def geometry(self) -> Geometry:
        """Shape of the file at `open`, or after `resize`."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the file system or the device."""
        return self._capabilities

    @property
    def identity(self) -> str:
        """The path of a file without symbolic links; of a device its `block_identity`."""
        return self._identity

    def is_known_as(self, identity: str) -> bool:
        """Return whether an identity names this medium; earlier versions recorded the path of a device."""
        return super().is_known_as(identity) or (self._is_device and identity == self._path_identity())

    @property
    def place(self) -> str:
        """The inode with its generation, the sequence number of a device: no other file or disk has it."""
        if self._is_device:
            return str(linux.disk_sequence(self._fd))
        return f"{self.status().st_ino}:{linux.inode_generation(self._fd)}"

    @property
    def inline(self) -> InlineVerbs:
        """Reads from the page cache, and writes to it."""
        return self._inline

    def read(self, offset: int, views: Views) -> None:
        """Read through the page cache, or past it with `direct`."""
        if self._direct is not None:
            self._direct.read(offset, views)
            return
        done = transfer(partial(os.preadv, self._fd), offset, views)
        wanted = sum(map(len, views))
        if done < wanted and self._is_padding(offset + done, offset + wanted):
            Buffer(views).zero(done)
        elif done < wanted:
            raise MediumError(offset + done, f"{self.options.path} ends at byte {offset + done}")

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write into the page cache, and with `fua` through it (pwritev(2), ``RWF_DSYNC``)."""
        self._check_whole(offset, sum(map(len, views)))
        write = partial(self._write, offset, views)
        if fua:
            self._syncs.run_write(partial(write, os.RWF_DSYNC), partial(write, 0))
        else:
            write(0)

    def _write(self, offset: int, views: Views, flags: int) -> None:
        if self._direct is not None:
            self._direct.write(offset, views, flags=flags)
        else:
            store(partial(self._pwritev, flags=flags), offset, views)

    def flush(self) -> None:
        """Write back the page cache, and the cache of the device below it (fdatasync(2))."""
        if not self._capabilities.read_only:
            self._syncs.run(partial(os.fdatasync, self._fd))

    def unmap(self, offset: int, length: int) -> None:
        """Punch a hole, or discard on a device."""
        self._check_whole(offset, length)
        with self._beside_direct_writes():
            if not self._is_device:
                linux.punch_hole(self._fd, offset, length)
                return
            block = self._geometry.block_size
            start, end = -(-offset // block) * block, (offset + length) // block * block
            if start < end:
                linux.discard(self._fd, start, end - start)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes by fallocate(2) or BLKZEROOUT where possible, else with writes."""
        self._check_whole(offset, length)
        ways = (linux.punch_hole, linux.zero_range) if may_unmap else (linux.zero_range,)
        with self._beside_direct_writes():
            done = any(self._can(way, offset, length) for way in ways)
        if not done:
            super().write_zeroes(offset, length, may_unmap=may_unmap)
        if fua:
            self.flush()

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Look for holes (lseek(2), ``SEEK_HOLE``); a device shows none."""
        if not self._capabilities.extents:
            return super().extents(offset, length)
        self._check_whole(offset, length)
        return holes_and_data(self._fd, offset, offset + length)

    def space(self) -> Space | None:
        """Return the bytes that the file occupies and those free in its file system; None for a device."""
        if self._is_device:
            return None
        system = os.fstatvfs(self._fd)
        return Space(available=system.f_bavail * system.f_frsize, used=os.fstat(self._fd).st_blocks * 512)

    def resize(self, size: int) -> None:
        """Change the size of the file, or take the size that a device has now."""
        shape = replace(self._geometry, size=size)
        if self._is_device:
            if os.lseek(self._fd, 0, os.SEEK_END) != size:
                raise OSError(errno.EOPNOTSUPP, f"{self.options.path} has another size")
            self._geometry = shape
            return
        self.options.alignment(file_path.Medium(size))
        self._check_whole(0, self._geometry.size)
        try:
            self._expected.size = min(size, self._geometry.size)
            self._set_size(size)
            self._geometry = shape
        finally:
            self._expected.size = self._geometry.size

    def _set_size(self, size: int) -> None:
        """Set the size of the file on stable storage, since others record it then.

        Raises:
            OSError: That failed, and the file has its former size; bytes to be cut off may be zeroes.
        """
        former = self._geometry.size
        with Undo() as failing, self._beside_direct_writes():
            if size < former:
                self.flush()  # a failure from before is told while nothing is cut off yet
            failing.callback(os.ftruncate, self._fd, former)
            os.ftruncate(self._fd, size)
            try:
                self.flush()
            except OSError as error:
                if size > former:
                    raise
                text = f"{error.strerror}; the bytes from {size} on may be zeroes now"
                raise type(error)(error.errno, text) from error
            failing.pop_all()

    def share(self, *, shared: bool) -> None:
        """Lock the file shared or exclusively; for a file that is written at times.

        Raises:
            InUseError: Somebody reads it.
        """
        file_path.lock(self._fd, self.options.path, shared=shared)

    def _name(self) -> str:
        """Return a text that names the medium."""
        status = os.fstat(self._fd)
        lasting = block_identity(status.st_rdev) if stat.S_ISBLK(status.st_mode) else None
        return self._path_identity() if lasting is None else f"block:{lasting}"

    def _warn_of_name(self) -> None:
        """Warn of a device whose name may belong to another device after a restart."""
        path = self.options.path
        better = lasting_path(path, os.fstat(self._fd).st_rdev) if self._is_device else None
        if better is not None:
            log.warning("%s may be another disk after a restart; name it %s", path, better)

    def _path_identity(self) -> str:
        return "file:" + file_path.in_utf8(os.path.realpath(self.options.path))

    def _is_padding(self, start: int, end: int) -> bool:
        """Return whether a range lies in the part of the last block that the file does not have."""
        return start >= self._geometry.size - self._padding and end <= self._geometry.size

    def status(self) -> os.stat_result:
        """Return the status of the open file, by fstat(2)."""
        return os.fstat(self._fd)

    def _ask(self, medium: file_path.Medium) -> Capabilities:
        """Probe the capabilities of the file system or device."""
        read_only = self.options.read_only
        can_unmap = medium.unmap_granularity > 0 if medium.is_device else read_only or self._can_punch(medium)
        return Capabilities(
            read_only=read_only,
            flush=not read_only,
            unmap=can_unmap,
            unmap_zeroes=can_unmap and not medium.is_device,
            extents=not medium.is_device,
            rotational=medium.rotational,
            unmap_granularity=medium.unmap_granularity if can_unmap else 0,
        )

    def _can_punch(self, medium: file_path.Medium) -> bool:
        """Return whether holes can be punched, by punching one behind the end of the file.

        That is behind the end; in a file of the largest size that its file system has, it is a hole.
        """
        try:
            return self._can(linux.punch_hole, medium.size, medium.unmap_granularity)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
        hole = os.lseek(self._fd, 0, os.SEEK_HOLE)
        return hole < medium.size and self._can(linux.punch_hole, hole, 1)

    def _ask_inline(self) -> InlineVerbs:
        """Return the inline verbs; none with direct I/O."""
        if self.options.direct:
            return InlineVerbs()
        return inline_verbs(self._fd, self._expected, read_only=self.options.read_only)

    def _can(self, way: Callable[[int, int, int], None], offset: int, length: int) -> bool:
        """Try a system call on a range; return whether it is supported here."""
        try:
            way(self._fd, offset, length)
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        return True

    def _beside_direct_writes(self) -> AbstractContextManager[None]:
        """Return a context for a change of the file that does not go through `DirectFile.write`."""
        return nullcontext() if self._direct is None else self._direct.beside_writes()

    def _check_whole(self, offset: int, length: int) -> None:
        """Refuse to touch bytes behind the end of a file that was truncated under us.

        Writing there would make the file longer again, and what was lost would read as
        zeroes.
        """
        if self._is_device:
            return
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end + self._padding < offset + length:
            raise MediumError(max(offset, end), f"{self.options.path} was truncated to {end} bytes")

    def _pwritev(self, views: Views, offset: int, flags: int) -> int:
        return os.pwritev(self._fd, views, offset, flags)
