"""The legs of a mirror together: who is asked, who is believed, who is dropped.

A leg is dropped only while another one that has all the data did what it could not. When
all of them fail, the request fails, and the legs stay: then it is not the legs.

This module knows membership, not which verb does what.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.gate import Gate
from vscsihba.handlers.mirror_leg import MirrorLeg, Standing
from vscsihba.handlers.mirror_state import LegRecord, MirrorState

log = logging.getLogger(__name__)

T = TypeVar("T")

_GATES = 64


class Members:
    """The legs and what is known of them.

    Args:
        legs: All of them, with their standing.
        state: The open state file.
        timeout: Seconds to wait for a leg; None for ever.

    Attributes:
        unsettled: Regions in which legs that have all the data may differ; they are read from
            the first such leg until they are made equal.
        fitting: Held while a leg is fitted to the size of the disk, and while that changes.
    """

    def __init__(self, legs: list[MirrorLeg], state: MirrorState, timeout: float | None) -> None:
        self.legs = legs
        self.state = state
        self.timeout = timeout
        self.unsettled = set(state.dirty())
        self.fitting = threading.Lock()
        self._lock = threading.Lock()
        self._gates = [Gate() for _ in range(_GATES)]

    def standing(self, *wanted: Standing) -> list[MirrorLeg]:
        """Return the legs of some standings, in their order."""
        return [leg for leg in self.legs if leg.standing in wanted]

    @property
    def complete(self) -> bool:
        """Every leg has all the data."""
        return all(leg.standing is Standing.WHOLE for leg in self.legs)

    def everywhere(
        self,
        verb: Callable[[Handler], object],
        legs: Iterable[MirrorLeg] | None = None,
        *,
        sure: MirrorLeg | None = None,
    ) -> None:
        """Let legs do something, all at once; drop those that could not.

        Args:
            verb: What to do.
            legs: Which; all that are not gone by default.
            sure: One that has all the data and need not do it.

        Raises:
            OSError: No leg that has all the data could.
        """
        asked = self.standing(Standing.WHOLE, Standing.BEHIND) if legs is None else list(legs)
        failures: dict[MirrorLeg, OSError] = {}
        outcomes = []
        for leg in asked:
            try:
                outcomes.append((leg, leg.submit(verb)))
            except OSError as error:
                failures[leg] = error
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        for leg, outcome in outcomes:
            try:
                outcome.get(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except OSError as error:
                failures[leg] = error
        if failures:
            self.judge(asked if sure is None else [*asked, sure], failures)

    def from_one(self, legs: Iterable[MirrorLeg], verb: Callable[[Handler], T]) -> T:
        """Let the first leg that can do something; drop those that could not.

        Raises:
            OSError: None of them could.
        """
        failures: dict[MirrorLeg, OSError] = {}
        for leg in legs:
            try:
                found = leg.submit(verb).get(self.timeout)
            except OSError as error:
                failures[leg] = error
                continue
            if failures:
                self.judge([*failures, leg], failures)
            return found
        raise next(iter(failures.values()), OSError(errno.EIO, "the mirror has no leg left"))

    def judge(self, asked: Iterable[MirrorLeg], failures: dict[MirrorLeg, OSError]) -> None:
        """Drop the legs that failed, if one that has all the data did not.

        On stable storage they are behind before this returns.

        Raises:
            OSError: All of those failed; or what was dropped cannot be noted.
        """
        with self._lock:
            if not any(leg.standing is Standing.WHOLE and leg not in failures for leg in asked):
                raise next(iter(failures.values()))
            for leg, error in failures.items():
                if leg.standing is not Standing.GONE:
                    log.error("mirror %s: %s is dropped: %s", self.state.header.uuid, leg, error)
                    leg.drop(error)
            self.record()

    def promote(self, legs: Iterable[MirrorLeg]) -> None:
        """Let legs that are behind, and were not dropped meanwhile, count as having all the data."""
        with self._lock:
            for leg in legs:
                if leg.standing is Standing.BEHIND:
                    leg.standing = Standing.WHOLE
                    log.info("mirror %s: %s has all the data", self.state.header.uuid, leg)
            self.record()

    def admit(self, leg: MirrorLeg) -> bool:
        """Try to open a leg that is gone, and say what it is good for; return whether it is open.

        `record` has to follow before it counts.
        """
        disk = leg.open(self.timeout)
        if disk is None:
            return False
        with self.fitting:
            try:
                self._fit(leg, disk)
            except (UsageError, OSError) as error:
                leg.drop(error)
                return False
            leg.standing = self._standing_of(leg)
        return True

    def _standing_of(self, leg: MirrorLeg) -> Standing:
        """Return what is noted of a leg; one that was never seen is behind everywhere."""
        known = {record.key: record for record in self.state.header.legs}.get(leg.key)
        if known is not None and known.identity == leg.identity:
            return Standing.WHOLE if known.whole else Standing.BEHIND
        log.warning("mirror %s: %s is new here, all of it is written", self.state.header.uuid, leg)
        with self.state.writing(0, self.state.header.regions):
            return Standing.BEHIND

    def record(self) -> None:
        """Note on stable storage which legs have all the data.

        Raises:
            OSError: That cannot be written.
        """
        known = {record.key: record.identity for record in self.state.header.legs}
        legs = tuple(
            LegRecord(
                key=leg.key,
                identity=leg.identity or known.get(leg.key, ""),
                whole=leg.standing is Standing.WHOLE,
            )
            for leg in self.legs
        )
        self.state.update(legs=legs)

    @contextmanager
    def passing(self, first: int, last: int) -> Iterator[None]:
        """Keep the regions from `first` to before `last` from being made equal while they are written."""
        with ExitStack() as gates:
            for number in sorted({region % _GATES for region in range(first, min(last, first + _GATES))}):
                gates.enter_context(self._gates[number].together())
            yield

    @contextmanager
    def alone_in(self, region: int) -> Iterator[None]:
        """Keep writes out of a region."""
        with self._gates[region % _GATES].alone():
            yield

    def _fit(self, leg: MirrorLeg, disk: Handler) -> None:
        """Make sure that a leg can take the place of the others.

        Raises:
            UsageError: It cannot.
            OSError: It is too small, and cannot grow.
        """
        if disk.capabilities.read_only:
            raise UsageError("it is read-only")
        size, found = self.state.header.size, disk.geometry
        whole = self.standing(Standing.WHOLE)
        if whole and found.block_size > whole[0].geometry.block_size:
            raise UsageError(f"its blocks of {found.block_size} bytes are larger than those of the mirror")
        if found.size < size:
            leg.submit(lambda disk: disk.resize(size)).get(self.timeout)
