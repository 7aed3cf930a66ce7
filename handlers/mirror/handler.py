"""mirror: the same data on several legs; the disk goes on as long as one of them does.

A write goes to every leg, a read to one of them. A leg that fails, or does not answer in
time, is dropped, reported, and recorded as out before the write that it missed is answered.
When it is back, it is made equal where that is needed, while the disk is in use
(`sync`). Which leg has all the data is recorded in a mark behind the data of each
leg (`mark`) and in the state file, which also has the dirty region log (`state`).

This module knows the verbs; `members` knows which leg is asked and which is dropped,
`start` how a mirror is opened.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from vscsihba.block import Buffer, Capabilities, ExtentStatus, Geometry, Views
from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.handlers.actions import Action, NoArguments
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.fan import Fan, Leg
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.mirror.inline import inline_verbs
from vscsihba.handlers.mirror.leg import LegStatus, MirrorLeg, Standing
from vscsihba.handlers.mirror.metadata import MOST_LEGS
from vscsihba.handlers.mirror.start import StartOptions, close_all, open_members
from vscsihba.handlers.mirror.sync import ResyncProgress, Synchroniser
from vscsihba.handlers.options import MediumPath, Options, Seconds
from vscsihba.handlers.shared.vectored import read_bytes
from vscsihba.handlers.stack import build

log = logging.getLogger(__name__)

_NO_SHRINK = (OSError, MemoryError, VscsihbaError)


class NewLeg(Options):
    """A leg to be added."""

    leg: Annotated[str | dict[str, Any], Meta(description="Path or document of the leg.")]
    overwrite: Annotated[bool, Meta(description="Accept a leg that is not empty.")] = False


class OneLeg(Options):
    """One of the legs."""

    number: Annotated[int, Meta(description="Number of the leg, as in the status.", ge=0)]


class MirrorHandler(Fan):
    """The same data on several legs; one working leg is enough."""

    name = "mirror"
    example = (
        '{"handler": "mirror", "path": "/srv/disk.mirror", "create": true, '
        '"legs": ["/srv/a.img", "/mnt/b.img"]}'
    )
    workers = 16

    class Options(Handler.Options, kw_only=True):
        """Options of the mirror."""

        path: Annotated[
            MediumPath,
            Meta(
                description="State file: a copy of the legs' marks, and the dirty region log.",
                min_length=1,
            ),
        ]
        create: Annotated[
            bool,
            Meta(
                description="Create a missing file: from the marks of the legs if they have any, "
                "else for a new mirror with the data of the first leg."
            ),
        ] = False
        overwrite: Annotated[
            bool, Meta(description="Accept legs after the first that are not empty, in a new mirror.")
        ] = False
        decide: Annotated[
            str, Meta(description="Leg that has all the data, as the error message proposed it.")
        ] = ""
        region_size: Annotated[
            Literal[65536, 131072, 262144, 524288, 1048576, 2097152, 4194304],
            Meta(description="Region of a new mirror in bytes: the unit of resync."),
        ] = 1048576
        timeout: Annotated[
            Seconds, Meta(description="Seconds to wait for a leg before it is dropped; 0 for no limit.")
        ] = 15.0
        retry: Annotated[
            Seconds, Meta(description="Seconds until a dropped leg is retried; 0 for never.")
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
        """Check that the state file is there; if it is to be created, that every leg can be opened."""
        path = self.options.path
        if file_path.look(path, read_only=False) is None:
            if not self.options.create:
                raise UsageError(
                    f"{path}: no such mirror",
                    cure='say "create": true: it makes a new mirror, or this file from the marks of the legs',
                )
            if not self.may_make:
                raise UsageError(
                    f"{path}: no such state file of a mirror, and only adding the LUN makes one",
                    cure="mount its file system or bring it back; "
                    "to have it made from the marks of the legs, remove the LUN and add it again",
                )
            file_path.check_room(path)
            for leg in self._mirrored:
                leg.check()

    def open(self) -> None:
        """Open the legs that can be opened, and start the resync of regions that may differ.

        Raises:
            UsageError: Two legs are the same, or those of a new mirror do not fit.
            HostError: No leg that has all the data can be opened, or the marks do not say which has.
            OSError: Which legs are used cannot be recorded.
        """
        said = self.options
        may_create = said.create and self.may_make
        options = StartOptions(
            said.path, may_create, said.region_size, said.overwrite, said.decide, self._timeout
        )
        self._members = open_members(self._mirrored, options)
        try:
            self._geometry = self._shape(self._members.metadata.size)
            self._sync = Synchroniser(self._members, said.retry or None)
            self._sync.start()
        except BaseException:
            self._close_all()
            raise

    def close(self) -> None:
        """Flush every leg, and clear the dirty region log if all legs are equal."""
        self._sync.stop()
        try:
            self._members.everywhere(lambda disk: disk.flush(), waits=True)
            self._end_session()
        finally:
            self._close_all()

    def _end_session(self) -> None:
        """Record the end of the session; where that fails, more is copied later, and nothing is lost."""
        members = self._members
        try:
            if members.complete and not members.regions.unsettled:
                members.state.clear()
            for _ in range(2):  # as at the beginning: a copy of a leg that was made meanwhile is older then
                members.keep()
        except OSError as error:
            log.warning("mirror %s: the end of the session is not recorded: %s", members.metadata.uuid, error)

    @property
    def geometry(self) -> Geometry:
        """The recorded size, in blocks of the recorded size, whichever legs are open."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Fallback for legs that cannot unmap: zeroes are written."""
        members = self._members
        legs = [leg.capabilities for leg in members.standing(Standing.WHOLE, Standing.BEHIND) or members.legs]
        return Capabilities(
            flush=True,
            unmap=True,
            unmap_zeroes=True,
            extents=True,
            rotational=any(leg.rotational for leg in legs),
            in_place=all(leg.in_place for leg in legs),
            unmap_granularity=max(leg.unmap_granularity for leg in legs),
        )

    @property
    def identity(self) -> str:
        """The UUID of the mirror."""
        return f"mirror:{self._members.metadata.uuid}"

    @property
    def inline(self) -> InlineVerbs:
        """Reads that a leg can answer without blocking, and writes that every leg can take so."""
        return inline_verbs(self._members)

    @property
    def progress(self) -> ResyncProgress | None:
        """Progress of the resync; None when there is none."""
        return self._sync.progress

    def status(self) -> list[LegStatus]:
        """Return the status of each leg."""
        return [leg.status for leg in self._members.legs]

    def add_leg(self, leg: Leg, *, overwrite: bool = False) -> int:
        """Add a leg, all of which is then written; return its number.

        Args:
            leg: The leg.
            overwrite: It need not be empty.

        Raises:
            UsageError: It cannot be opened, does not fit, is not empty, or takes part already.
        """
        with self._changing:
            new = MirrorLeg(leg, self._number)
            new.overwrite = overwrite
            if new.document in {other.document for other in self._members.legs}:
                raise UsageError("this leg is part of the mirror already")
            if len(self._members.legs) >= MOST_LEGS:
                raise UsageError(f"a mirror has at most {MOST_LEGS} legs")
            if not self._members.add(new):
                raise UsageError(f"the new leg cannot be used: {new.error}")
            self._number += 1
            self.legs = [*self.legs, leg]
        self._sync.ask()
        return new.number

    def remove_leg(self, number: int) -> None:
        """Remove a leg, and its mark if it can be reached.

        Raises:
            UsageError: There is none of that number, or no other one has all the data.
            OSError: That cannot be recorded; the leg takes part still.
        """
        with self._changing:
            leg = self._leg(number)
            place = self._members.legs.index(leg)
            self._members.remove(leg)
            self.legs = self.legs[:place] + self.legs[place + 1 :]

    def overwrite(self, number: int) -> None:
        """Allow a leg that is gone to be overwritten as a whole.

        Raises:
            UsageError: There is none of that number, or it is in use.
        """
        leg = self._leg(number)
        if leg.standing is not Standing.GONE:
            raise UsageError(f"{leg} is in use", cure="only a leg that is gone can be overwritten")
        leg.overwrite = True
        self._sync.ask()

    def _leg(self, number: int) -> MirrorLeg:
        legs = {leg.number: leg for leg in self._members.legs}
        if number not in legs:
            numbers = ", ".join(map(str, sorted(legs)))
            raise UsageError(f"the mirror has no leg {number}", cure=f"its legs are {numbers}")
        return legs[number]

    def retry(self) -> None:
        """Try at once to open the legs that are gone."""
        self._sync.ask()

    def actions(self) -> Mapping[str, Action[Any]]:
        """Actions on the legs."""
        return {
            "status": Action("tell what is known of each leg", NoArguments, lambda _, __: self._told()),
            "retry": Action("try the legs that are gone now", NoArguments, lambda _, __: self.retry()),
            "add_leg": Action("let another leg take part", NewLeg, self._add),
            "overwrite": Action(
                "let all of a leg that is gone be written, whatever is on it",
                OneLeg,
                lambda old, _: self.overwrite(old.number),
            ),
            "remove_leg": Action(
                "let a leg take part no more", OneLeg, lambda old, _: self.remove_leg(old.number)
            ),
        }

    def _add(self, new: NewLeg, _progress: object) -> int:
        return self.add_leg(build(new.leg, place="leg"), overwrite=new.overwrite)

    def _told(self) -> dict[str, object]:
        progress = self.progress
        resync = None if progress is None else {"done": progress.done, "of": progress.total}
        return {"legs": self.status(), "resync": resync}

    def read(self, offset: int, views: Views) -> None:
        """Read from a leg that has all the data, from another one if that fails."""
        buffer = Buffer(views)
        legs = self._members.readers(offset, buffer.length)
        buffer.scatter(self._members.from_one(legs, lambda disk: read_bytes(disk, offset, buffer.length)))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to every leg."""
        data = [memoryview(Buffer(views).gather())]
        self._change(offset, len(data[0]), lambda disk: disk.write(offset, data, fua=fua), waits=fua)

    def flush(self) -> None:
        """Flush every leg."""
        # Asked for before: what becomes equal or is written during the flush may not be flushed by it.
        idle = self._members.idle_regions()
        self._members.everywhere(lambda disk: disk.flush(), waits=True)
        self._members.forget(idle)

    def unmap(self, offset: int, length: int) -> None:
        """Make the range zeroes on every leg, and holes where legs support them."""
        self.write_zeroes(offset, length, may_unmap=True)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes to every leg."""
        self._change(
            offset,
            length,
            lambda disk: disk.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua),
            waits=fua,
        )

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Ask a leg that has all the data."""
        return self._members.from_one(
            self._members.readers(offset, length), lambda disk: disk.extents(offset, length)
        )

    def resize(self, size: int) -> None:
        """Resize every leg; new regions are made equal."""
        shape = self._shape(size)
        members, before = self._members, self._geometry.size
        with members.fitting, members.regions.held(0, max(size, before)):
            members.check_answers()
            if size > before:
                self._enlarge(before, size)
            members.keep(size=size)
            self._geometry = shape
            if size < before:
                try:
                    members.shrink(size)
                except _NO_SHRINK as error:  # the disk has its size, and too large legs are no harm
                    log.warning("mirror %s: the legs keep their size: %s", members.metadata.uuid, error)

    def _enlarge(self, before: int, size: int) -> None:
        """Enlarge every leg; where they may differ then, they are made equal."""
        members = self._members
        new = members.regions.numbers(before, size - before)
        # The last region of the smaller disk may be clean, and is written to; those behind it will be dirty,
        # unless the log has them still: it may have missed that the disk became smaller.
        known = max(members.metadata.regions, members.state.regions)
        with members.state.writing(new.start, min(new.stop, known)):
            members.enlarge(before, size)
        members.regions.unsettle(new)

    def _change(self, offset: int, length: int, verb: Callable[[Handler], None], *, waits: bool) -> None:
        """Change a range of every leg; if that fails, its regions stay dirty."""
        members = self._members
        with members.regions.changing(offset, length):
            members.check_answers()  # also of those that held the range until now
            with members.regions.unsettled_by_failure(offset, length):
                members.everywhere(verb, waits=waits)

    def _shape(self, size: int) -> Geometry:
        members = self._members
        block, used = members.block_size, members.standing(Standing.WHOLE, Standing.BEHIND)
        physical = max(leg.geometry.physical_block_size for leg in used)
        return Geometry(size, block_size=block, physical_block_size=max(physical, block))

    def _close_all(self) -> None:
        close_all(self._members.legs, self._members.state)
