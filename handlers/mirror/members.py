"""The legs of a mirror together: which of them get a request, count, or are dropped.

A leg is dropped only while another one that has all the data did what it could not. When
all of them fail, the request fails, and the legs stay: then it is not the legs. The drop is recorded by a
majority of the copies of the metadata (`record`) before anything that the leg has missed
is acknowledged.

This module knows membership, not which verb does what.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.mirror.assembly import Verdict, judge
from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.mark import enlarge, erase_mark, length_with_mark, make_room, shrink
from vscsihba.handlers.mirror.metadata import Metadata
from vscsihba.handlers.mirror.reading import turn
from vscsihba.handlers.mirror.record import Record
from vscsihba.handlers.mirror.regions import Regions
from vscsihba.handlers.mirror.state import IdleRegions, MirrorState
from vscsihba.handlers.shared.abandonable_pool import attempt

log = logging.getLogger(__name__)

T = TypeVar("T")


class Members:
    """The legs of a mirror, and their state.

    Args:
        legs: All of them, with their standing.
        state: The open state file.
        metadata: The copy that is believed.
        timeout: Seconds to wait for a leg; None for ever.

    Attributes:
        record: The copies of the metadata.
        regions: The regions of the disk: changes under way, and where legs may differ.
        on_drop: Called after a leg was dropped.
        fitting: Held while a leg is fitted to the size of the disk, and while that changes.
    """

    def __init__(
        self, legs: list[MirrorLeg], state: MirrorState, metadata: Metadata, timeout: float | None
    ) -> None:
        self.legs = legs
        self.state = state
        self.timeout = timeout
        self.record = Record(state, metadata, timeout)
        self.regions = Regions(state, metadata.region_size)
        self.on_drop: Callable[[], object] = lambda: None
        self.fitting = threading.Lock()
        self._lock = threading.RLock()
        self._admitting = threading.Lock()

    def standing(self, *wanted: Standing) -> list[MirrorLeg]:
        """Return the legs of some standings, in their order."""
        return [leg for leg in self.legs if leg.standing in wanted]

    @property
    def metadata(self) -> Metadata:
        """The recorded metadata of the mirror."""
        return self.record.metadata

    @property
    def block_size(self) -> int:
        """Bytes of a logical block of the disk: as recorded, else those that suit every leg in use."""
        used = self.standing(Standing.WHOLE, Standing.BEHIND)
        return self.metadata.block_size or max(leg.geometry.block_size for leg in used)

    @property
    def complete(self) -> bool:
        """Every leg has all the data, and that is recorded."""
        return all(leg.standing is Standing.WHOLE for leg in self.legs) and not self.record.is_due

    def everywhere(
        self,
        verb: Callable[[Handler], object],
        legs: Iterable[MirrorLeg] | None = None,
        *,
        sure: MirrorLeg | None = None,
        waits: bool = False,
    ) -> None:
        """Call a verb of several legs at once; drop those that fail.

        Args:
            verb: The operation.
            legs: Which; all that are not gone by default.
            sure: One that has all the data and need not do it.
            waits: The verb flushes.

        Raises:
            OSError: No leg that has all the data could; or a leg that was dropped, now or before,
                is not recorded as dropped.
        """
        asked = self.standing(Standing.WHOLE, Standing.BEHIND) if legs is None else list(legs)
        failures: dict[MirrorLeg, OSError] = {}
        futures = []
        for leg in asked:
            try:
                # Whatever goes wrong here, what was handed to other legs has to be waited for.
                futures.append((leg, attempt(partial(leg.begin_change, verb, waits=waits))))
            except OSError as error:
                failures[leg] = error
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        for leg, future in futures:
            try:
                future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except OSError as error:
                failures[leg] = error
        if failures:
            with self._lock:
                for leg, future in futures:
                    leg.give_up(future)
            self.judge(asked if sure is None else [*asked, sure], failures)
        if self.record.is_due:
            self.keep()

    def check_answers(self) -> None:
        """Refuse a change while a leg in use may still carry out one that was given up.

        Else that could land after what is newer.

        Raises:
            OSError: Such a leg has not answered yet.
        """
        for leg in self.legs:
            if leg.standing is not Standing.GONE:
                leg.check_answers()

    def from_one(self, legs: Iterable[MirrorLeg], verb: Callable[[Handler], T]) -> T:
        """Call a verb of one leg after the other until one succeeds; drop those that fail.

        Raises:
            OSError: None of them could.
        """
        failures: dict[MirrorLeg, OSError] = {}
        for leg in legs:
            try:
                answer = leg.submit(verb).result(self.timeout)
            except OSError as error:
                failures[leg] = error
                continue
            if failures:
                self._dropped_reading(leg, failures)
            return answer
        raise next(iter(failures.values()), OSError(errno.EIO, "the mirror has no leg left"))

    def _dropped_reading(self, reader: MirrorLeg, failures: dict[MirrorLeg, OSError]) -> None:
        """Drop legs that could not be read; until that is recorded, writes fail, and reads need not."""
        try:
            self.judge([*failures, reader], failures)
            self.keep()
        except OSError as error:
            log.warning("mirror %s: writes fail from now on: %s", self.metadata.uuid, error)

    def judge(self, asked: Iterable[MirrorLeg], failures: dict[MirrorLeg, OSError]) -> None:
        """Drop the legs that failed, if one that has all the data did not; `keep` has to follow.

        Raises:
            OSError: All of those failed.
        """
        with self._lock:
            # One that is being removed has done it, and will not be there any more.
            others = [leg for leg in asked if leg in self.legs and leg not in failures]
            if not any(leg.standing is Standing.WHOLE for leg in others):
                raise next(iter(failures.values()))
            for leg, error in failures.items():
                self._drop(leg, error)

    def keep(self, *, size: int | None = None, without: MirrorLeg | None = None) -> None:
        """Record which legs have all the data, by a majority of the copies, on stable storage.

        Legs that cannot write their mark are dropped as well.

        Args:
            size: The new capacity of the disk in bytes, if it changes.
            without: A leg that is to be no part of the mirror any more.

        Raises:
            OSError: There is no such majority.
        """
        with self._lock:
            kept = [leg for leg in self.legs if leg is not without]
            self._write(kept, size=size)
            self._confirm(kept)

    def _write(self, kept: list[MirrorLeg], *, size: int | None = None) -> None:
        while failures := self.record.write(kept, size=size):
            whole = [leg for leg in kept if leg.standing is Standing.WHOLE and leg not in failures]
            dropped = {
                leg: error for leg, error in failures.items() if whole or leg.standing is Standing.BEHIND
            }
            if not dropped:
                raise next(iter(failures.values()))
            for leg, error in dropped.items():
                self._drop(leg, error)
        self.record.check_majority()

    def _confirm(self, kept: list[MirrorLeg]) -> None:
        """Let every copy say that a change of the voters has counted.

        Until then it is believed only where those who voted before agree. A failure takes nothing back.
        """
        try:
            while self.record.metadata.electors is not None:
                self._write(kept)
        except OSError as error:
            log.warning("mirror %s: a change of the legs is not confirmed: %s", self.metadata.uuid, error)

    def _drop(self, leg: MirrorLeg, error: Exception) -> None:
        if leg.standing is not Standing.GONE:
            log.error("mirror %s: %s is dropped: %s", self.metadata.uuid, leg, error)
            # In this order: who does not see the leg any more finds that there is something to record.
            self.record.is_due = True
            leg.drop(error)
            self.on_drop()

    def promote(self, legs: Iterable[MirrorLeg]) -> None:
        """Let legs that are behind, and were not dropped meanwhile, count as having all the data.

        Every leg that is in has it in its mark before that is so: else that leg, alone, would think that
        it is the only one.

        Raises:
            OSError: That cannot be recorded; they are behind still.
        """
        with self._lock:
            ready = [leg for leg in legs if leg.standing is Standing.BEHIND]
            if not ready and not self.record.is_due:
                return
            failures = self.record.write(self.legs, joining=ready)
            if failures:
                self.judge(self.legs, failures)
                raise next(iter(failures.values()))
            self.record.check_majority()
            for leg in ready:
                leg.standing = Standing.WHOLE
                log.info("mirror %s: %s has all the data", self.metadata.uuid, leg)
            self._confirm(self.legs)

    def admit(self, leg: MirrorLeg) -> bool:
        """Try to open a leg that is gone, and let it be behind; return whether that is so.

        It is written to from now on; its mark is there first. One that was removed meanwhile is not opened.
        """
        with self._admitting:
            return leg in self.legs and self._open(leg)

    def _open(self, leg: MirrorLeg) -> bool:
        """Do as `admit` does; to be called by the one that admits."""
        if leg.standing is not Standing.GONE:
            return True
        if leg.open(self.timeout) is None:
            return False
        try:
            attempt(lambda: self._accept(leg))
        except OSError as error:
            leg.drop(error.strerror or error)
            leg.wait_until_closed()
        return leg.standing is not Standing.GONE

    def _accept(self, leg: MirrorLeg) -> None:
        verdict = judge(leg.candidate(self.metadata, self.timeout), self.metadata, opening=False)
        self.check_place(verdict)
        with self.fitting:
            self.fit(leg, verdict)
            self.enlist(leg, verdict)
            self.record.introduce(leg)
            with self._lock:
                leg.standing = Standing.BEHIND
                self.keep()

    def add(self, leg: MirrorLeg) -> bool:
        """Add a leg; return whether it can be used."""
        with self._admitting:
            with self._lock:
                self.legs = [*self.legs, leg]
            if self._open(leg):
                return True
            with self._lock:
                self.legs = [other for other in self.legs if other is not leg]
        return False

    def remove(self, leg: MirrorLeg) -> None:
        """Remove a leg, and its mark if it can be reached.

        Raises:
            UsageError: No other one has all the data.
            OSError: That cannot be recorded; the leg takes part still.
        """
        with self._admitting:
            with self._lock:
                # Under the lock: another leg may be dropped at any time, and no copy may say that none is in.
                if self.standing(Standing.WHOLE) == [leg]:
                    raise UsageError(
                        f"{leg} is the only one that has all the data", cure="wait until another one has"
                    )
                was_due, gone = self.record.is_due, self.standing(Standing.GONE)
                # Nothing is forgotten that the leg has missed before it is forgotten itself.
                self.record.is_due = True
                try:
                    self.keep(without=leg)  # it is written to meanwhile, as it may have to stay
                except OSError:
                    self.record.is_due = was_due or self.standing(Standing.GONE) != gone
                    raise
                self.legs = [other for other in self.legs if other is not leg]
            try:
                if leg.standing is not Standing.GONE and leg.has_room:
                    leg.submit(erase_mark).result(self.timeout)
            except OSError as error:
                log.warning("mirror %s: the mark of %s stays: %s", self.metadata.uuid, leg, error)
            leg.drop("it was removed")

    def enlarge(self, before: int, size: int) -> None:
        """Enlarge the legs from `before` to `size` bytes of the disk, new bytes as zeroes.

        No mark is written meanwhile: it could land at the former end of a leg, in the new part of the disk.

        Raises:
            OSError: As `everywhere`, or an earlier mark may still be written.
        """
        with self._lock:
            self.check_answers()
            self.everywhere(lambda disk: enlarge(disk, before, size), waits=True)

    def shrink(self, size: int) -> None:
        """Shrink the legs to a smaller disk, as far as they can; no mark is written meanwhile.

        A mark is only looked for behind the size that the state file has, so that size has to be there first.

        Raises:
            OSError: As `everywhere`, or the state file does not have the size of the disk.
        """
        with self._lock:
            self.record.check_state()
            self.everywhere(lambda disk: shrink(disk, size), waits=True)

    def check_place(self, verdict: Verdict) -> None:
        """Refuse a leg that may not be used, or is in the mirror already.

        Raises:
            UsageError: That is so.
        """
        if verdict.problem:
            raise UsageError(verdict.problem)
        used = self.standing(Standing.WHOLE, Standing.BEHIND)
        twin = next((other for other in used if other.uuid == verdict.uuid), None)
        if twin is not None:
            raise UsageError(f"it carries the same mark as {twin}, so it is a copy of that")

    def enlist(self, leg: MirrorLeg, verdict: Verdict) -> None:
        """Take over the judgement of a leg; where all of it has to be written, every region is dirty.

        Raises:
            OSError: That cannot be noted.
        """
        if verdict.everything:
            log.warning(
                "mirror %s: %s is new or has other data, and is resynced completely", self.metadata.uuid, leg
            )
            self.state.mark_all()
        leg.take(verdict)

    def fit(self, leg: MirrorLeg, verdict: Verdict) -> None:
        """Check that a leg is large enough for the disk, and give it room for a mark.

        To be called with `fitting` held.

        Raises:
            UsageError: It cannot.
            OSError: It does not answer.
        """
        if leg.capabilities.read_only:
            raise UsageError("it is read-only")
        size = self.metadata.size
        block = self.metadata.block_size or max(
            (other.geometry.block_size for other in self.standing(Standing.WHOLE) if other is not leg),
            default=0,
        )
        if block and leg.geometry.block_size > block:
            raise UsageError(
                f"its blocks of {leg.geometry.block_size} bytes are larger than those of the mirror"
            )
        if size % leg.geometry.block_size:
            raise UsageError(
                f"the disk has {size} bytes, no multiple of its blocks of {leg.geometry.block_size} bytes"
            )
        leg.has_room = leg.submit(lambda disk: make_room(disk, size)).result(self.timeout)
        leg.geometry = leg.submit(lambda disk: disk.geometry).result(self.timeout)
        entry = self.metadata.entry(verdict.uuid)
        without_mark = entry is not None and entry.event == 0 and leg.geometry.size >= size
        if not leg.has_room and not without_mark:
            raise UsageError(
                f"it has {leg.geometry.size} bytes, and {length_with_mark(size)} are needed: "
                f"{size} of the disk, and a mark behind them",
                cure="enlarge it",
            )

    def readers(self, offset: int, length: int) -> list[MirrorLeg]:
        """Return the legs to read a range from, in the order to try them."""
        legs = self.standing(Standing.WHOLE)
        first = turn(legs, self.regions, offset, length) if legs else 0
        return legs[first:] + legs[:first]

    def idle_regions(self) -> IdleRegions:
        """Return the regions that `forget` may forget after a flush of all legs; to be called before that."""
        return self.regions.idle() if self.complete else IdleRegions()

    def until_idle(self) -> float | None:
        """Return the seconds after which `idle_regions` may find some; None if it would not."""
        return self.state.until_idle() if self.complete else None

    def forget(self, idle: IdleRegions) -> None:
        """Forget regions that are equal and flushed on all legs."""
        if not idle.numbers or not self.complete:
            return
        try:
            self.regions.forget(idle)
        except OSError as error:
            log.warning("mirror %s: regions stay dirty: %s", self.metadata.uuid, error)
