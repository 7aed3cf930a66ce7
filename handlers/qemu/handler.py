"""qemu: a disk image of any format that QEMU knows, served through a private qemu-storage-daemon.

This module knows the verbs; `open_image` how an image is opened. The data goes over NBD (`link`), and
acknowledged writes survive the death of the daemon and of this process (`logged_verbs`).
"""

import errno
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from vscsihba.block import Capabilities, ExtentStatus, Geometry, Space, Views
from vscsihba.errors import HostError, NoSuchFileError, UsageError
from vscsihba.handlers.actions import Action, NoArguments
from vscsihba.handlers.asynchronous import wait
from vscsihba.handlers.base import AsyncVerbs, Handler
from vscsihba.handlers.encrypt.passphrase import Secret
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.qemu import image, making, programs
from vscsihba.handlers.qemu.open_image import OpenImage
from vscsihba.handlers.qemu.options import QemuOptions
from vscsihba.handlers.qemu.qmp import QmpError

log = logging.getLogger(__name__)

_CHECK = 10.0
"""Seconds that a check of an image may hold up its requests."""


class QemuHandler(Handler):
    """A disk image in a format of QEMU."""

    name = "qemu"
    example = "qemu:/srv/disk.qcow2"
    workers = 8

    class Options(QemuOptions, kw_only=True):
        """Options of the handler qemu."""

    options: Options

    def check(self) -> None:
        """Check that there is an image that can be opened, or that one can be created."""
        options = self.options
        programs.check_programs(["qemu-img", "qemu-nbd" if options.snapshot else "qemu-storage-daemon"])
        programs.check_libnbd()
        options.check_secret()
        if os.path.exists(options.path):  # noqa: PTH110 - a link to a file that is missing counts as missing
            if not (options.is_read_only or os.access(options.path, os.W_OK)):
                raise file_path.explain(options.path, OSError(errno.EACCES, ""))
            info = self._examine()
            self._shape(info)
            if options.backing:
                info.check_backing(options.backing)
            if info.encrypted and options.secret is None:
                raise UsageError(f"{options.path} is encrypted", cure='name its "passphrase_file"')
            if options.secret is not None and not info.encrypted:
                raise UsageError(f"{options.path} is not encrypted", cure="leave its key out")
        elif not options.is_created:
            raise NoSuchFileError(
                f"{options.path}: no such image", cure='create it, or set "format" and "size"'
            )
        elif not self.may_make:
            raise file_path.lost(options.path, "image")
        else:
            making.check_creatable(options)

    def open(self) -> None:
        """Create the image if it is missing and asked for, and start its daemon.

        Raises:
            UsageError: The image, its key or a file below it is not usable.
            InUseError: Another disk or program has the image open.
            HostError: A program or package is missing, or the image cannot be opened.
        """
        options = self.options
        secret = Secret(options.secret) if options.secret is not None else None
        if not os.path.exists(options.path):  # noqa: PTH110 - as above
            making.create(options, secret.get() if secret is not None else None)
        info = self._examine()
        self._geometry = self._shape(info)
        self._image = OpenImage(options, info, secret)
        try:
            self._geometry = self._shape(replace(info, size=self._image.link.geometry.size))
        except UsageError:
            self._image.close()
            raise
        self._capabilities = Capabilities(
            read_only=options.is_read_only,
            flush=not options.is_read_only,
            unmap=info.zeroes,
            unmap_zeroes=info.zeroes,
            extents=True,
            unmap_granularity=info.cluster if info.zeroes else 0,
            in_place=info.in_place,
        )

    def close(self) -> None:
        """Flush logged writes, and end the daemon."""
        self._image.close()

    @property
    def geometry(self) -> Geometry:
        """Shape of the image at `open`, or after `resize`."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the format."""
        return self._capabilities

    @property
    def identity(self) -> str:
        """The path without symbolic links, or the identity of the block device; and the snapshot."""
        snapshot = f"@{self.options.snapshot}" if self.options.snapshot else ""
        return self._image.file.identity + snapshot

    @property
    def place(self) -> str:
        """The inode with its generation, or the sequence number of a device."""
        return self._image.file.place

    @property
    def daemon(self) -> int | None:
        """The process of the daemon, None while it is being started."""
        return self._image.supervisor.pid

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """Reads, writes and flushes over NBD."""
        return self._image.verbs

    def read(self, offset: int, views: Views) -> None:
        """Read from the daemon."""
        wait(partial(self._image.disk.read, offset, views, wait=True))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write, to the daemon and into the write log."""
        wait(partial(self._image.disk.write, offset, views, fua, wait=True))

    def flush(self) -> None:
        """Have the daemon put everything on stable storage."""
        wait(partial(self._image.disk.flush, wait=True))

    def unmap(self, offset: int, length: int) -> None:
        """Make the range zeroes that take no storage."""
        if not self._capabilities.unmap:
            super().unmap(offset, length)
        wait(partial(self._image.disk.unmap, offset, length, wait=True))

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Have the daemon write zeroes."""
        wait(partial(self._image.disk.write_zeroes, offset, length, may_unmap, fua, wait=True))

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Ask the daemon which clusters the image has."""
        return self._image.link.extents(offset, length)

    def space(self) -> Space | None:
        """Return the bytes that the file occupies and those free in its file system; None for a device."""
        if self._image.file.is_device:
            return None
        system, status = os.statvfs(self.options.real_path), os.stat(self.options.real_path)  # noqa: PTH116
        return Space(available=system.f_bavail * system.f_frsize, used=status.st_blocks * 512)

    def resize(self, size: int) -> None:
        """Change the capacity of the image; not every format can."""
        shape = replace(self._geometry, size=size)
        try:
            self._image.resize(size)
        except QmpError as error:
            no_room = "No space" in error.message
            raise OSError(errno.ENOSPC if no_room else errno.EOPNOTSUPP, error.message) from error
        except HostError as error:
            raise OSError(errno.EIO, error.message) from error
        before, self._geometry = self._geometry.size, shape
        cluster = self._image.info.cluster
        if size > before and cluster and (rest := min(size, -(-before // cluster) * cluster) - before):
            self.write_zeroes(before, rest, may_unmap=True)  # the last cluster may have older bytes there
            self.flush()

    def actions(self) -> Mapping[str, Action[Any]]:
        """Actions on the image."""
        return {
            "check": Action(
                f"check the tables of the image; its disk waits meanwhile, {_CHECK:g} s at most",
                NoArguments,
                lambda _, __: self.check_image(),
            ),
            "status": Action("tell what is known of the image", NoArguments, lambda _, __: self._status()),
        }

    def check_image(self) -> dict[str, Any]:
        """Check the tables of the image, as ``qemu-img check`` does; repair nothing.

        Returns:
            The result of qemu-img: numbers of ``corruptions``, ``leaks``, ``check-errors`` and others.

        Raises:
            OSError: The flush before it failed; EOPNOTSUPP: the format has no check.
            HostError: It cannot be checked, or takes too long.
        """
        return self._image.check(timeout=_CHECK)

    def _status(self) -> dict[str, object]:
        opened = self._image
        return {
            "path": opened.info.path,
            "format": opened.info.format,
            "backing": opened.info.backing,
            "daemon": self.daemon,
            "logged": 0 if opened.log is None else len(opened.log),
        }

    def _examine(self) -> image.ImageInfo:
        return image.examine(self.options.real_path, self.options.format)

    def _shape(self, info: image.ImageInfo) -> Geometry:
        """Return the shape of the disk.

        Raises:
            UsageError: The capacity does not suit a disk, or not these blocks.
        """
        block, physical = self.options.block_size, self.options.physical_block_size
        try:
            return Geometry(info.size, block_size=block, physical_block_size=max(block, physical))
        except UsageError as error:
            raise UsageError(f"{self.options.path}: {error.message}", cure=error.cure) from error
