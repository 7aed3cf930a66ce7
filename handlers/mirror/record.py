"""The record of a mirror: writes new metadata to all copies, and counts the copies that have it.

This module knows copies and votes, not why a leg is in or out.
"""

import errno
import time
from collections.abc import Collection, Iterable
from uuid import uuid4

import msgspec

from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.metadata import MOST_ENTRIES, LegEntry, Metadata, is_majority
from vscsihba.handlers.mirror.state import MirrorState
from vscsihba.handlers.shared.abandonable_pool import Future, attempt


class Record:
    """The metadata in force, and the one that is to replace it.

    Args:
        state: The open state file.
        metadata: The copy that is believed.
        timeout: Seconds to wait for a leg; None for ever.

    Attributes:
        metadata: The metadata that a majority has on stable storage.
        is_due: A leg was dropped, and no majority has that yet; nothing may be acknowledged until one has.
    """

    def __init__(self, state: MirrorState, metadata: Metadata, timeout: float | None) -> None:
        self.metadata = metadata
        self.is_due = False
        self._state = state
        self._timeout = timeout
        self._session = str(uuid4())
        self._highest = max(metadata.event, state.metadata.event)
        self._state_event = state.metadata.event
        self._proposal = metadata
        self._counted = metadata.counted_voters
        self._uncounted: list[Metadata] = []
        self._written: set[str] = set()
        self._state_error: OSError | None = None

    def saw(self, event: int) -> None:
        """Note that some copy, believed or not, has an event count."""
        self._highest = max(self._highest, event)

    def write(
        self, legs: Iterable[MirrorLeg], *, joining: Collection[MirrorLeg] = (), size: int | None = None
    ) -> dict[MirrorLeg, OSError]:
        """Write new metadata to the state file, then to every leg that is used.

        Where all these together cannot make it count, no leg is written. `check_majority` has to follow.

        Args:
            legs: All of the mirror.
            joining: Legs that are to count as having all the data.
            size: The new capacity of the disk in bytes, if it changes.

        Returns:
            The legs that could not write it, with the reason.
        """
        legs = list(legs)
        if self._proposal is not self.metadata:
            # Some copy may have it, and be believed: no voter of it may be passed over from now on.
            voters = set(self._proposal.voters)
            self._uncounted = [each for each in self._uncounted if set(each.voters) != voters]
            self._uncounted.append(self._proposal)
        self._proposal = self._propose(legs, joining, size)
        self._written, self._state_error = set(), None
        # First, and alone if that is not enough: whatever a leg may say after a crash, the state file has
        # then said it too, so legs that are opened without each other cannot go different ways.
        try:
            attempt(lambda: self._state.save(self._proposal))
            self._state_event = self._proposal.event
        except OSError as error:
            self._state_error = error
        used = [leg for leg in legs if leg.standing is not Standing.GONE and leg.has_room]
        if not self._is_enough({leg.uuid for leg in used}):
            return {}
        failures: dict[MirrorLeg, OSError] = {}
        futures: list[tuple[MirrorLeg, Future[None]]] = []
        for leg in used:
            try:
                futures.append((leg, leg.begin_mark(self._proposal)))
            except OSError as error:
                failures[leg] = error
        return failures | self._await(futures)

    def _await(self, futures: Iterable[tuple[MirrorLeg, Future[None]]]) -> dict[MirrorLeg, OSError]:
        failures: dict[MirrorLeg, OSError] = {}
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        for leg, future in futures:
            try:
                future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except OSError as error:
                failures[leg] = error
                leg.give_up(future)
            else:
                leg.event, leg.marked_size = self._proposal.event, self._proposal.size
                self._written.add(leg.uuid)
        return failures

    def check_state(self) -> None:
        """Refuse to go on if the state file could not be written last; its log would not be believed later.

        Raises:
            OSError: It could not.
        """
        if self._state_error is not None:
            raise self._state_error

    def check_majority(self) -> None:
        """Let the metadata that were written last count, if more than half of the present votes have them.

        More than half of the votes of each proposal that was written since have to have it as well: it may be
        what the copies say that are found after a crash. So do those of the last change that is known to have
        counted: legs that were not there when the mirror was opened may have another one.

        Raises:
            OSError: They have not; what counts now counts still.
        """
        if not self._is_enough(self._written):
            error = self._state_error or OSError(errno.EIO, "the other legs cannot be written")
            raise OSError(
                error.errno or errno.EIO,
                f"which legs have all the data cannot be recorded by a majority: {error.strerror or error}",
            )
        self.metadata, self.is_due, self._uncounted = self._proposal, False, []
        self._counted = self.metadata.voters

    def _is_enough(self, legs: Collection[str]) -> bool:
        """Return whether some legs, and the state file if it was written, let what was written last count."""
        electorates = (self._counted, self.metadata.voters, *(each.voters for each in self._uncounted))
        has_state = self._state_error is None
        return all(is_majority(voters, legs, state_file=has_state) for voters in electorates)

    def introduce(self, leg: MirrorLeg) -> None:
        """Write the first mark of a leg that is to be behind, before anything else is written to it.

        Raises:
            OSError: It cannot be written.
        """
        if not leg.has_room:
            return
        self._highest += 1
        mine = leg.entry("behind")
        entries = tuple(entry for entry in self.metadata.legs if entry.uuid != leg.uuid)
        metadata = self._with_electors(
            msgspec.structs.replace(self.metadata, event=self._highest, legs=(*entries, mine))
        )
        leg.begin_mark(metadata).result(self._timeout)
        leg.event, leg.marked_size = metadata.event, metadata.size

    def _propose(self, legs: list[MirrorLeg], joining: Collection[MirrorLeg], size: int | None) -> Metadata:
        self._highest += 1
        entries = [leg.entry("in" if leg in joining else None) for leg in legs if leg.uuid]
        return self._with_electors(
            msgspec.structs.replace(
                self.metadata,
                leg="",
                event=self._highest,
                state_event=self._state_event,
                session=self._session,
                size=size or self.metadata.size,
                legs=(*entries, *self._others(legs, entries)),
            )
        )

    def _with_electors(self, proposal: Metadata) -> Metadata:
        electors = None if proposal.voters == self._counted else tuple(sorted(self._counted))
        return msgspec.structs.replace(proposal, electors=electors)

    def _others(self, legs: list[MirrorLeg], entries: list[LegEntry]) -> list[LegEntry]:
        """Return the entries of legs that are not known here, while some leg is not known yet.

        Once every leg has all the data, what the others have missed is forgotten, and so are they.
        Those for which there is no room are forgotten before: they are written only if that is said.
        """
        if all(entry.state == "in" for entry in entries) and all(leg.uuid for leg in legs):
            return []
        known = {entry.uuid for entry in entries}
        return [
            msgspec.structs.replace(
                entry, state="out", until=entry.until if entry.state == "out" else self.metadata.event
            )
            for entry in self.metadata.legs
            if entry.uuid not in known
        ][: MOST_ENTRIES - len(entries)]
