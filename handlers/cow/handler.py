"""cow: a disk whose changes go to an overlay, while the base below stays as it is.

Any number of disks can share a base, each with an overlay of its own. The overlay is a
sparse file of its own format (`format`), is locked while it is in use, and survives a
crash (`overlay`). It remembers which base it belongs to and refuses another one.

This module knows which base and which overlay belong together; `disk` knows how they make
one disk.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vscsihba.block import Capabilities, ExtentStatus, Geometry, Views
from vscsihba.errors import HostError, InUseError, UsageError
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cow.disk import BelowHandler, CowDisk
from vscsihba.handlers.cow.format import OPTIMAL_IO, Header
from vscsihba.handlers.cow.inline import inline_verbs
from vscsihba.handlers.cow.overlay_file import create_overlay, digest, open_overlay, place
from vscsihba.handlers.file import making as file_making
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.filter import Transform
from vscsihba.handlers.options import MediumPath, Size
from vscsihba.handlers.shared.claims import NameClaim
from vscsihba.handlers.shared.undo import Undo


class CowHandler(Transform):
    """Copy-on-write: changes go to an overlay, the base is never written."""

    name = "cow"
    example = "cow:/srv/vm1.cow;create=true|/srv/golden.img"
    workers = 8
    only_reads = True

    class Options(Handler.Options, kw_only=True):
        """Options of the cow filter."""

        path: Annotated[MediumPath, Meta(description="The overlay file.", min_length=1)]
        create: Annotated[bool, Meta(description="Create the overlay if it is missing.")] = False
        size: Annotated[
            Size | None,
            Meta(description="Capacity of a new overlay, if larger than the base."),
        ] = None
        cluster_size: Annotated[
            Literal[4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576],
            Meta(description="Cluster of a new overlay in bytes: the unit of copying on the first write."),
        ] = 65536
        rebase: Annotated[
            bool, Meta(description="Accept the layer below as the base, even if another one is recorded.")
        ] = False
        read_only: Annotated[
            bool, Meta(description="Never write; several disks may share the overlay then.")
        ] = False

        def __post_init__(self) -> None:
            """Refuse options that contradict each other."""
            if self.read_only and (self.create or self.rebase):
                raise ValueError('"read_only" forbids "create" and "rebase"')
            if self.size is not None and not self.create:
                raise ValueError('"size" is for an overlay that is made, so it needs "create"')

    options: Options

    def check(self) -> None:
        """Check that there is an overlay, or room to create one."""
        path = self.options.path
        if file_path.look(path, read_only=self.options.read_only) is None:
            if not self.options.create:
                raise UsageError(f"{path}: no such overlay", cure='make it with "create": true')
            if not self.may_make:
                raise file_path.lost(path, "overlay")
            file_path.check_room(path)

    def open(self) -> None:
        """Open the overlay, create it if asked to, and check that it belongs to the layer below.

        Raises:
            HostError: It belongs to another base, or this one has changed.
        """
        wanted = self.options
        with Undo() as failing, Undo() as opened:
            if wanted.create and self.may_make:
                if Path(wanted.path).exists():
                    file_making.keep(wanted.path)
                else:
                    self._create()
                    failing.callback(os.unlink, os.path.realpath(wanted.path))
            self._overlay = open_overlay(wanted.path, read_only=wanted.read_only)
            opened.callback(self._overlay.close)
            self._name = self._claim()
            opened.enter_context(self._name)
            self._check_base()
            self._disk = CowDisk(self._overlay, BelowHandler(self.next))
            self._geometry = self._shape(self._overlay.header.size)
            self._opened = opened.pop_all()
            failing.pop_all()

    def close(self) -> None:
        """Flush and close the overlay.

        Raises:
            OSError: The flush failed; it is let go of all the same.
        """
        self._opened.close()

    @property
    def geometry(self) -> Geometry:
        """The blocks of the base; the overlay says how many."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the overlay; the base is only read."""
        read_only = self.options.read_only
        return Capabilities(
            read_only=read_only,
            flush=not read_only,
            unmap=not read_only,
            in_place=False,
            extents=True,
            rotational=self.next.capabilities.rotational,
            unmap_granularity=0 if read_only else self._overlay.cluster_size,
        )

    @property
    def identity(self) -> str:
        """The overlay's own name, wherever its file goes."""
        return f"cow:{self._overlay.header.uuid}"

    @property
    def place(self) -> str:
        """Where the overlay is."""
        return self._overlay.store.place

    @property
    def inline(self) -> InlineVerbs:
        """Inline verbs: a request that concerns only the overlay or only the base goes there directly."""
        return inline_verbs([self._disk], self.next)

    def read(self, offset: int, views: Views) -> None:
        """Read clusters of the overlay, and the rest from the base."""
        self._disk.read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to the overlay."""
        self._disk.write(offset, views)
        if fua:
            self._overlay.flush()

    def flush(self) -> None:
        """Flush contents, then the map; see `overlay`."""
        self._overlay.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Make whole clusters zeroes, which take no storage; parts of them may stay what they were."""
        self._disk.unmap(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Mark clusters as zeroes, which take no storage."""
        self._disk.write_zeroes(offset, length)
        if fua:
            self._overlay.flush()

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return the extents of the overlay, and those of the base for the rest."""
        return self._disk.extents(offset, length)

    def resize(self, size: int) -> None:
        """Set the size of the disk, whatever the size of the base."""
        shape = self._shape(size)
        self._disk.resize(size)
        self._geometry = shape

    def _claim(self) -> NameClaim:
        """Claim the UUID of the overlay for this file."""
        path = self.options.path
        taken = InUseError(
            f"{path} is a copy of an overlay that is in use, with the same uuid",
            cure=f'give it its own, while no disk uses it: "vscsihba cow renew-uuid {path}"',
        )
        return NameClaim(
            self.identity, shared=self.options.read_only, taken=taken, place=place(self._overlay)
        )

    def _create(self) -> None:
        base = self.next.geometry
        size = base.size if self.options.size is None else self.options.size
        if size < base.size:
            raise UsageError(
                f"{self.options.path}: an overlay of {size} bytes hides some of the {base.size} below"
            )
        self._shape(size)
        header = Header(
            size=size,
            cluster_size=self.options.cluster_size,
            base=self.next.identity,
            base_size=base.size,
            base_digest=digest(self.next),
        )
        create_overlay(self.options.path, header)

    def _shape(self, size: int) -> Geometry:
        return replace(self.next.geometry, size=size, optimal_io=OPTIMAL_IO)

    def _check_base(self) -> None:
        """Make sure that the layer below is the overlay's base, or make it so if that was asked for."""
        header, below = self._overlay.header, self.next
        if header.committing:
            raise HostError(
                f"{self.options.path}: a commit into its base was interrupted", cure="commit it again"
            )
        present = {
            "base": header.base if below.is_known_as(header.base) else below.identity,
            "base_size": below.geometry.size,
            "base_digest": digest(below),
        }
        recorded = {name: getattr(header, name) for name in present}
        if present == recorded:
            if header.base != below.identity and not self.options.read_only:  # as earlier versions named it
                self._overlay.replace_header(msgspec.structs.replace(header, base=below.identity))
            return
        if self.options.rebase and self.may_make:
            self._overlay.replace_header(msgspec.structs.replace(header, **present))
            return
        what = "has changed" if present["base"] == header.base else f"is not {header.base}"
        raise HostError(
            f"{self.options.path}: its base {what}",
            cure='bring the right one back; if this one is right, add the LUN anew with "rebase": true',
        )
