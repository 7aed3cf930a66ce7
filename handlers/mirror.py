"""mirror: the same data on several legs; the disk goes on as long as one of them does.

A write goes to every leg, a read to one of them. A leg that fails, or does not answer in
time, is dropped, reported, and noted as behind before the write that it missed is answered.
When it is back, it is made equal where that is needed, while the disk is in use
(`mirror_sync`). What has to be remembered is in a file of its own (`mirror_state`), so that
each leg holds the disk's data and nothing else.

This module knows the verbs; `mirror_members` knows which leg is asked and which is dropped.
"""

import errno
import os
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from vscsihba.block import Buffer, Capabilities, ExtentStatus, Geometry, Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers import file_path
from vscsihba.handlers.actions import Action, NoArguments
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.fan import Fan, Leg
from vscsihba.handlers.mirror_leg import LegStatus, MirrorLeg, Standing
from vscsihba.handlers.mirror_members import Members
from vscsihba.handlers.mirror_state import Header, LegRecord, MirrorState, create_state
from vscsihba.handlers.mirror_sync import Progress, Synchroniser
from vscsihba.handlers.options import MediumPath, Options, Seconds
from vscsihba.handlers.stack import build
from vscsihba.handlers.vectored import read_bytes

_SPREAD = 1 << 20
"""Bytes that are read from one leg before the next one's turn, so that each can read ahead."""


class NewLeg(Options):
    """A leg to be added."""

    leg: Annotated[str | dict[str, Any], Meta(description="What the leg is: a path or a document.")]


class OneLeg(Options):
    """One of the legs."""

    number: Annotated[int, Meta(description="Its number, as the status tells it.", ge=0)]


class MirrorHandler(Fan):
    """The same data on several legs; the disk goes on as long as one does."""

    name = "mirror"
    example = (
        '{"handler": "mirror", "path": "/srv/disk.mirror", "create": true, '
        '"legs": ["/srv/a.img", "/mnt/b.img"]}'
    )
    workers = 16

    class Options(Handler.Options, kw_only=True):
        """Options of the mirror."""

        path: Annotated[
            MediumPath, Meta(description="The file that remembers which leg has what.", min_length=1)
        ]
        create: Annotated[
            bool, Meta(description="Make it if it is missing, with the data of the first leg for all.")
        ] = False
        region_size: Annotated[
            Literal[65536, 131072, 262144, 524288, 1048576, 2097152, 4194304],
            Meta(description="Bytes that are made equal at once, in a new mirror."),
        ] = 1048576
        timeout: Annotated[
            Seconds, Meta(description="How long to wait for a leg before it is dropped; 0 for ever.")
        ] = 15.0
        retry: Annotated[
            Seconds, Meta(description="How long to wait before a dropped leg is tried again; 0 for never.")
        ] = 10.0

    options: Options

    def __init__(self, options: Options, legs: list[Leg]) -> None:
        super().__init__(options, legs)
        self.workers = type(self).workers
        self._timeout = options.timeout or None
        self._mirrored = [MirrorLeg(leg, number) for number, leg in enumerate(legs)]
        self._number = len(legs)
        self._changing = threading.Lock()

    def check(self) -> None:
        """Look whether the state file is there; for a new mirror, whether every leg can open."""
        path = self.options.path
        if file_path.look(path, read_only=False) is None:
            if not self.options.create:
                raise UsageError(f"{path}: no such mirror", cure='make it with "create": true')
            if not self.may_make:
                raise file_path.lost(path, "mirror")
            file_path.demand_room(path)
            for leg in self._mirrored:
                leg.check()

    def open(self) -> None:
        """Open the legs that can be opened, and begin to make equal what may differ.

        Raises:
            UsageError: Two legs are the same.
            HostError: No leg that has all the data can be opened.
        """
        if len({leg.key for leg in self._mirrored}) < len(self._mirrored):
            raise UsageError("two legs of the mirror are the same")
        if self.options.create and self.may_make and not os.path.lexists(self.options.path):
            self._create()
        state = MirrorState(self.options.path)
        self._members = Members(self._mirrored, state, self._timeout)
        try:
            for leg in self._mirrored:
                self._members.admit(leg)
            self._demand_whole()
            self._members.record()
            self._geometry = self._shape(state.header.size)
        except BaseException:
            self._close_all()
            raise
        self._sync = Synchroniser(self._members, self.options.retry or None)
        self._sync.start()

    def close(self) -> None:
        """Flush every leg, and note that nothing may differ if that is so."""
        self._sync.stop()
        try:
            self._members.everywhere(lambda disk: disk.flush())
            if self._members.complete and not self._members.unsettled:
                self._members.state.clear()
        finally:
            self._close_all()

    @property
    def geometry(self) -> Geometry:
        """The size that was noted, in blocks that suit every leg that was open at first."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """What is done for legs that cannot do it: zeroes in place of unmapping."""
        legs = [leg.capabilities for leg in self._members.standing(Standing.WHOLE, Standing.BEHIND)]
        return Capabilities(
            flush=True,
            unmap=True,
            unmap_zeroes=True,
            extents=True,
            rotational=any(leg.rotational for leg in legs),
            unmap_granularity=max(leg.unmap_granularity for leg in legs),
        )

    @property
    def identity(self) -> str:
        """The mirror's own name, whichever its legs are."""
        return f"mirror:{self._members.state.header.uuid}"

    @property
    def inline(self) -> InlineVerbs:
        """Reads that a leg can answer without blocking."""

        def read(views: Views, offset: int, _flags: int) -> int:
            legs = self._readers(offset, sum(map(len, views)))
            if not legs:
                raise BlockingIOError
            return legs[0].read_inline(views, offset)

        return InlineVerbs(read=read)

    @property
    def progress(self) -> Progress | None:
        """How far the legs are made equal; None when there is nothing to do."""
        return self._sync.progress

    def status(self) -> list[LegStatus]:
        """Return what is known of each leg."""
        return [leg.status for leg in self._members.legs]

    def add_leg(self, leg: Leg) -> int:
        """Let another leg take part, all of which is written; return its number.

        Raises:
            UsageError: It cannot be opened, does not fit, or takes part already.
        """
        with self._changing:
            new = MirrorLeg(leg, self._number)
            if new.key in {other.key for other in self._members.legs}:
                raise UsageError("this leg is part of the mirror already")
            if not self._members.admit(new):
                raise UsageError(f"the new leg cannot be used: {new.error}")
            self._number += 1
            self.legs = [*self.legs, leg]
            self._members.legs = [*self._members.legs, new]
            self._members.record()
        self._sync.ask()
        return new.number

    def remove_leg(self, number: int) -> None:
        """Let a leg take part no more.

        Raises:
            UsageError: There is none of that number, or no other one has all the data.
        """
        with self._changing:
            found = {leg.number: leg for leg in self._members.legs}.get(number)
            if found is None:
                raise UsageError(f"the mirror has no leg {number}")
            if self._members.standing(Standing.WHOLE) == [found]:
                raise UsageError(
                    f"{found} is the only one that has all the data", cure="wait until another one has"
                )
            place = self._members.legs.index(found)
            self.legs = self.legs[:place] + self.legs[place + 1 :]
            self._members.legs = [leg for leg in self._members.legs if leg is not found]
            self._members.record()
        found.drop(OSError(errno.ENODEV, "it was removed"))

    def retry(self) -> None:
        """Try the legs that are gone now."""
        self._sync.ask()

    def actions(self) -> Mapping[str, Action[Any]]:
        """What can be done about the legs."""
        return {
            "status": Action("tell what is known of each leg", NoArguments, lambda _, __: self._told()),
            "retry": Action("try the legs that are gone now", NoArguments, lambda _, __: self.retry()),
            "add_leg": Action(
                "let another leg take part", NewLeg, lambda new, _: self.add_leg(build(new.leg, place="leg"))
            ),
            "remove_leg": Action(
                "let a leg take part no more", OneLeg, lambda old, _: self.remove_leg(old.number)
            ),
        }

    def _told(self) -> dict[str, object]:
        progress = self.progress
        resync = None if progress is None else {"done": progress.done, "of": progress.total}
        return {"legs": self.status(), "resync": resync}

    def read(self, offset: int, views: Views) -> None:
        """Read from a leg that has all the data, from another one if that fails."""
        buffer = Buffer(views)
        legs = self._readers(offset, buffer.length)
        buffer.scatter(self._members.from_one(legs, lambda disk: read_bytes(disk, offset, buffer.length)))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to every leg."""
        data = [memoryview(Buffer(views).gather())]
        self._change(offset, len(data[0]), lambda disk: disk.write(offset, data, fua=fua))

    def flush(self) -> None:
        """Flush every leg."""
        self._members.everywhere(lambda disk: disk.flush())
        if self._members.complete:
            self._members.state.settle()

    def unmap(self, offset: int, length: int) -> None:
        """Make it zeroes on every leg, and holes where there can be."""
        self.write_zeroes(offset, length, may_unmap=True)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes to every leg."""
        self._change(
            offset,
            length,
            lambda disk: disk.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua),
        )

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Ask a leg that has all the data."""
        return self._members.from_one(
            self._readers(offset, length), lambda disk: disk.extents(offset, length)
        )

    def resize(self, size: int) -> None:
        """Resize every leg; what is new is made equal."""
        shape = self._shape(size)
        state, before = self._members.state, self._geometry.size
        with self._members.fitting, self._members.passing(*self._regions(0, max(size, before))):
            self._members.everywhere(lambda disk: _resize(disk, before, size))
            state.update(size=size)
            self._geometry = shape
            if size > before:
                self._members.unsettled.update(range(*self._regions(before, size - before)))
                self._sync.ask()

    def _change(self, offset: int, length: int, verb: Callable[[Handler], None]) -> None:
        """Change a range of every leg; if that fails, they may differ there."""
        first, last = self._regions(offset, length)
        # In this order: a leg that joins from now on finds the regions dirty.
        with self._members.state.writing(first, last), self._members.passing(first, last):
            try:
                self._members.everywhere(verb)
            except OSError:
                self._members.unsettled.update(range(first, last))
                self._sync.ask()
                raise

    def _readers(self, offset: int, length: int) -> list[MirrorLeg]:
        """Return the legs to read from, in the order to try them."""
        legs = self._members.standing(Standing.WHOLE)
        if len(legs) < 2 or not self._members.unsettled.isdisjoint(range(*self._regions(offset, length))):
            return legs
        turn = offset // _SPREAD % len(legs)
        return legs[turn:] + legs[:turn]

    def _regions(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first region that a range touches, and the one after the last."""
        size = self._members.state.header.region_size
        return offset // size, -(-(offset + length) // size)

    def _shape(self, size: int) -> Geometry:
        shapes = [leg.geometry for leg in self._members.standing(Standing.WHOLE, Standing.BEHIND)]
        block = max(shape.block_size for shape in shapes)
        return Geometry(
            size, block_size=block, physical_block_size=max(shape.physical_block_size for shape in shapes)
        )

    def _create(self) -> None:
        """Make the state file: the first leg has all the data, the others have none of it."""
        shapes = []
        for leg in self._mirrored:
            disk = leg.open(self._timeout)
            if disk is None:
                raise HostError(f"{leg} of the new mirror cannot be opened: {leg.error}")
            shapes.append(disk.geometry)
            leg.standing = Standing.WHOLE
            leg.close()
        if any(shape.size < shapes[0].size for shape in shapes):
            raise UsageError("a leg of the new mirror is smaller than the first one", cure="enlarge it")
        records = tuple(
            LegRecord(key=leg.key, identity=leg.identity, whole=leg.number == 0) for leg in self._mirrored
        )
        create_state(
            self.options.path,
            Header(size=shapes[0].size, region_size=self.options.region_size, legs=records),
        )

    def _demand_whole(self) -> None:
        if not self._members.standing(Standing.WHOLE):
            reasons = "; ".join(f"{leg}: {leg.error or 'it is behind'}" for leg in self._mirrored)
            raise HostError(
                f"{self.options.path}: no leg that has all the data can be opened ({reasons})",
                cure="bring one back",
            )

    def _close_all(self) -> None:
        for leg in self._members.legs:
            leg.close()
        self._members.state.close()


def _resize(disk: Handler, before: int, size: int) -> None:
    """Give a leg a new size, or be content with one that is larger; what is new becomes zeroes.

    Raises:
        OSError: It is too small, and cannot grow.
    """
    if disk.geometry.size != size:
        try:
            disk.resize(size)
        except OSError:
            if disk.geometry.size < size:
                raise
    if size > before:
        # A larger leg may have anything there.
        disk.write_zeroes(before, size - before, may_unmap=True)
