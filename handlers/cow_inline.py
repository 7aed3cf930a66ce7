"""Inline verbs of a disk made of base and overlay: a request that is all in one of them goes there.

What is spread, zero, or not in the overlay yet, goes to a thread and `cow`.
"""

from vscsihba.block import Views
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cow_format import BASE, DATA, PER_GROUP
from vscsihba.handlers.overlay import Overlay


def inline_verbs(overlay: Overlay, base: Handler) -> InlineVerbs:
    """Return the movers for a disk with this overlay on this base."""
    stored, below, below_size = overlay.store.inline, base.inline, base.geometry.size
    size, group, states, place = overlay.cluster_size, PER_GROUP, overlay.states, overlay.place

    def state_of(offset: int, end: int) -> int | None:
        """Return the state that all of a range has, None if it is spread."""
        first, last = offset // size, (end - 1) // size
        state = states[first]
        if first == last:
            return state
        # The places of two groups do not adjoin.
        alike = states.count(state, first, last + 1) == last + 1 - first
        return state if alike and first // group == last // group else None

    def read(views: Views, offset: int, _flags: int) -> int:
        end = offset + sum(map(len, views))
        state = state_of(offset, end)
        if state == DATA and stored.read is not None:
            return stored.read(views, place(offset), stored.read_flags)
        if state == BASE and end <= below_size and below.read is not None:
            return below.read(views, offset, below.read_flags)
        raise BlockingIOError

    def write(views: Views, offset: int, _flags: int) -> int:
        if stored.write is None or state_of(offset, offset + sum(map(len, views))) != DATA:
            raise BlockingIOError
        return stored.write(views, place(offset), stored.write_flags)

    return InlineVerbs(
        read=read, write=None if stored.write is None else write, write_limit=stored.write_limit
    )
