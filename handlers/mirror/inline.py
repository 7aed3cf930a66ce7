"""Inline verbs of a mirror: reads that one leg, and writes that every leg can do without blocking.

A write is done inline if that needs neither a wait nor a record: no other change overlaps it, its regions
are dirty already, and every dropped leg is recorded. Everything else is for `MirrorHandler.write`, which can
wait, drop a leg and record that. It repeats what was begun here and not finished; in case it is never called
(the command is aborted), the regions are made equal.
"""

from vscsihba.block import Views
from vscsihba.handlers.base import BatchedWrite, InlineVerbs, Mover, note_batched
from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.mirror.reading import turn

_WRITE_LIMIT = 1 << 20
"""Bytes: more than that is quicker on several threads, one for each leg."""


def inline_verbs(members: Members) -> InlineVerbs:
    """Return the inline verbs; those for writes only if all legs that are in use now have them.

    Legs that come later may lack them: such a write raises ``BlockingIOError``.
    """
    used = members.standing(Standing.WHOLE, Standing.BEHIND)
    limit = min([_WRITE_LIMIT, *(leg.write_limit for leg in used)])
    writer = InlineWriter(members)
    parts = BatchedWrite(writer.first, writer.rest, writer.end)
    return InlineVerbs(
        read=_reader(members), write=note_batched(writer.write, parts) if limit else None, write_limit=limit
    )


class InlineWriter:
    """Inline writes to all legs, in batches.

    Args:
        members: The legs.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._begun: list[BatchedWrite] = []
        self._refused: MirrorLeg | None = None

    def write(self, views: Views, offset: int, flags: int) -> int:
        """Write as a batch of its own; see `vscsihba.handlers.base.InlineVerbs`."""
        done = self.first(views, offset, flags)
        self.end()
        return done

    def first(self, views: Views, offset: int, flags: int) -> int:
        """Do the first write of a batch."""
        self._begun.clear()
        return self.rest(views, offset, flags)

    def rest(self, views: Views, offset: int, _flags: int) -> int:
        """Do a further write of a batch."""
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        members = self._members
        change = members.regions.try_change(offset, length)
        if change is None:
            raise BlockingIOError
        try:
            # Asked for now: a leg that joins later finds the regions dirty, and waits for the end of this.
            self._write(self._legs(length), views, offset, length)
        finally:
            members.regions.end_change(change)
        # After the write: a leg that it has not seen any more was dropped, and that is to be recorded first.
        if members.record.is_due:
            raise BlockingIOError
        return length

    def end(self) -> None:
        """End a batch."""
        for write in self._begun:
            write.end()

    def _legs(self, length: int) -> list[tuple[MirrorLeg, BatchedWrite]]:
        """Return the legs in use with their inline writes; the one that has refused last comes first.

        Raises:
            BlockingIOError: One of them may block.
        """
        legs = [
            (leg, leg.check_inline_write(length))
            for leg in self._members.legs
            if leg.standing is not Standing.GONE
        ]
        if not legs:
            raise BlockingIOError
        if self._refused is not None:
            legs.sort(key=lambda pair: pair[0] is not self._refused)
        return legs

    def _write(
        self, legs: list[tuple[MirrorLeg, BatchedWrite]], views: Views, offset: int, length: int
    ) -> None:
        """Write to one leg after the other; where that fails half way, note that they differ.

        Raises:
            OSError: Not all of them could.
        """
        for leg, write in legs:
            is_first = write not in self._begun
            try:
                leg.write_inline(write.first if is_first else write.rest, views, offset, length)
            except BaseException as error:
                self._refused = leg
                if leg is not legs[0][0] or not isinstance(error, BlockingIOError):
                    regions = self._members.regions
                    regions.unsettle(regions.numbers(offset, length))
                raise
            if is_first:
                self._begun.append(write)


def _reader(members: Members) -> Mover:
    """Return the inline read: of the leg whose turn it is."""

    def read(views: Views, offset: int, _flags: int) -> int:
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        legs = [leg for leg in members.legs if leg.standing is Standing.WHOLE]
        if not legs:
            raise BlockingIOError
        return legs[turn(legs, members.regions, offset, length)].read_inline(views, offset)

    return read
