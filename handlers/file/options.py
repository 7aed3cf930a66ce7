"""Options of a file that is a disk, and their effect on the file that is there.

Knows the options and how they go together with a medium; nothing is opened here but a template.
"""

import os
from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.block import Geometry
from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.file import making as file_making
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file.direct import DIRECT_ALIGNMENT
from vscsihba.handlers.file.image_formats import cure_for
from vscsihba.handlers.options import BlockSize, FilePath, MediumPath, Size


class FileOptions(Handler.Options, kw_only=True):
    """Options of the file handler."""

    path: Annotated[MediumPath, Meta(description="The image file or block device.", min_length=1)]
    size: Annotated[
        Size | None,
        Meta(
            description="Size of the file, such as 10GiB. When the LUN is added, a missing file is created "
            "and a smaller one is enlarged; a larger one keeps its size."
        ),
    ] = None
    create: Annotated[bool, Meta(description="Use size only to create the file; never enlarge it.")] = False
    block_size: Annotated[
        BlockSize | None,
        Meta(description="Logical block in bytes; default: that of the device, or 512."),
    ] = None
    physical_block_size: Annotated[
        int | None,
        Meta(description="Physical block in bytes; default: that of the device, or 4096."),
    ] = None
    preallocation: Annotated[
        Literal["none", "reserve", "full"],
        Meta(description="Allocation of a new file: none (sparse), reserve, or full (written with zeroes)."),
    ] = "none"
    copy_of: Annotated[
        FilePath,
        Meta(
            description="Create a missing file as a copy of this one, which takes neither time nor space "
            "if the file system supports reflinks."
        ),
    ] = ""
    format: Annotated[
        Literal["raw"] | None,
        Meta(
            description="Serve the bytes unchanged, even if they look like an image of another format "
            "(qcow2, vmdk, ...), which is refused otherwise."
        ),
    ] = None
    direct: Annotated[
        bool, Meta(description="Bypass the page cache (O_DIRECT); on files, in units of 4096 bytes.")
    ] = False
    read_only: Annotated[
        bool, Meta(description="Open the file read-only; several disks may then share it.")
    ] = False

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.create and self.size is None:
            raise ValueError('"create" needs a "size"')
        if self.preallocation != "none" and self.size is None:
            raise ValueError('"preallocation" is for a file that is made, so it needs a "size"')
        if self.copy_of and (self.create or self.preallocation != "none" or self.read_only):
            raise ValueError('"copy_of" does not go with "create", "preallocation" or "read_only"')
        if self.size is not None and self.read_only:
            raise ValueError('a file cannot be given a "size" with "read_only"')

    def medium(self, *, make: bool = True) -> file_path.Medium:
        """Return the medium of the disk, be it there or still to be made.

        Args:
            make: A file may be made or enlarged.

        Raises:
            UsageError: It can be no disk, or cannot be made.
        """
        medium = file_path.look(self.path, read_only=self.read_only)
        if medium is None:
            if not make and (self.copy_of or self.size is not None):
                raise file_path.lost(self.path)
            if self.copy_of:
                medium = self._template()
            elif self.size is not None:
                medium = file_path.Medium(self.size)
            else:
                raise file_path.missing(self.path)
            file_path.check_room(os.path.realpath(self.path))
        self.check_format(medium)
        return self.enlarged(medium, make=make)

    def check_format(self, medium: file_path.Medium) -> None:
        """Refuse a medium that holds an image of another format than raw, unless that was asked for.

        Raises:
            UsageError: It does.
        """
        if medium.image_format and self.format is None:
            raise UsageError(
                f"{self.path} is an image of the format {medium.image_format}, not raw",
                cure=cure_for(medium.image_format),
            )

    def _template(self) -> file_path.Medium:
        """Return the template that a missing file is to be a copy of.

        Raises:
            UsageError: There is no such file, or it is no file.
        """
        template = file_path.look(self.copy_of, read_only=True)
        if template is None:
            raise UsageError(f"{self.copy_of}: there is no such file to copy")
        if template.is_device:
            raise UsageError(f"{self.copy_of} is a device", cure='a "copy_of" must be a file')
        return template

    def make(self, *, make: bool = True) -> bool:
        """Make a file that is missing, if it was said how; return whether it was made.

        Args:
            make: It may be made.

        Raises:
            UsageError: It may not.
        """
        path, size = os.path.realpath(self.path), self.size
        if not make and (self.copy_of or size is not None):
            raise file_path.lost(path)
        if self.copy_of:
            file_making.copy(self.copy_of, path)
        elif size is not None:
            file_making.create(path, size, self.preallocation)
        return bool(self.copy_of) or size is not None

    def enlarged(self, medium: file_path.Medium, *, make: bool = True) -> file_path.Medium:
        """Return the medium with at least the size that was asked for.

        Args:
            medium: The file or device as it is.
            make: A file may be enlarged; one that is smaller is taken as it is otherwise.

        Raises:
            UsageError: It is a device that is smaller.
        """
        size = self.size
        if size is None or self.create or medium.size >= size or not (make or medium.is_device):
            return medium
        if medium.is_device:
            raise UsageError(
                f"{self.path} has {medium.size} bytes, not {size}",
                cure='leave "size" out, or enlarge the device',
            )
        return replace(medium, size=size)

    def shape(self, medium: file_path.Medium) -> Geometry:
        """Return the shape of the disk, with the block sizes that were asked for."""
        padded = self.read_only and not medium.is_device
        return medium.geometry(self.path, self.block_size, self.physical_block_size, padded=padded)

    def alignment(self, medium: file_path.Medium) -> int:
        """Return the alignment of direct requests in bytes.

        Raises:
            UsageError: The end of the file is not.
        """
        alignment = medium.block_size if medium.is_device else DIRECT_ALIGNMENT
        if self.direct and medium.size % alignment:
            raise UsageError(
                f"{self.path}: the size {medium.size} is not a multiple of the {alignment} that "
                "direct access needs",
                cure='leave "direct" out' if self.read_only else "enlarge it a little",
            )
        return alignment
