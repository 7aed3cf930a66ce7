"""Inline verbs of a disk made of overlays on a base: a request that is all in one of them goes there.

What is spread, zero, or not in the topmost overlay yet, goes to a thread and `disk`.
"""

import errno
from collections.abc import Sequence

from vscsihba.block import Views
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cow.format import BASE, DATA, PER_GROUP
from vscsihba.handlers.cow.overlay import Overlay


def inline_verbs(overlays: Sequence[Overlay], base: Handler) -> InlineVerbs:
    """Return the movers for a disk with these overlays, from the topmost down, on this base."""
    layers = [(overlay, overlay.store.inline) for overlay in overlays]
    top, stored = layers[0]
    below, below_size = base.inline, base.geometry.size

    def read(views: Views, offset: int, _flags: int) -> int:
        end = offset + sum(map(len, views))
        for overlay, inline in layers:
            state = _state_of(overlay, offset, end)
            if state == DATA and inline.read is not None:
                done = inline.read(views, overlay.place(offset), inline.read_flags)
                if overlay.broken:  # a flush has failed since, perhaps: `disk` knows what is lost
                    raise BlockingIOError
                return done
            if state != BASE:
                raise BlockingIOError
        if end <= below_size and below.read is not None:
            return below.read(views, offset, below.read_flags)
        raise BlockingIOError

    def write(views: Views, offset: int, _flags: int) -> int:
        if stored.write is None or _state_of(top, offset, offset + sum(map(len, views))) != DATA:
            raise BlockingIOError
        done = stored.write(views, top.place(offset), stored.write_flags)
        if top.broken:
            raise OSError(errno.EIO, "an earlier flush failed")
        return done

    return InlineVerbs(
        read=read, write=None if stored.write is None else write, write_limit=stored.write_limit
    )


def _state_of(overlay: Overlay, offset: int, end: int) -> int | None:
    """Return the state that all of a range has in an overlay, None if it is spread or not in one place."""
    size, states = overlay.cluster_size, overlay.states
    first, last = offset // size, (end - 1) // size
    if end > overlay.header.size:
        return None
    state = states[first]
    if first == last:
        return state
    # The places of two groups do not adjoin.
    alike = states.count(state, first, last + 1) == last + 1 - first
    return state if alike and first // PER_GROUP == last // PER_GROUP else None
