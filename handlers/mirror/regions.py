"""The regions of a mirror: which changes of them are under way, and in which of them the legs may differ.

A change of the disk holds its range and keeps its regions dirty (`state`) until all legs have it. Changes
that overlap reach all legs in one order, and no region is made equal while it is changed.

This module knows no leg: who uses it says whether a change has reached all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vscsihba.handlers.mirror.state import IdleRegions, MirrorState
from vscsihba.handlers.shared.range_lock import Held, RangeLock

Change = tuple[Held, range]
"""A change under way: the range that it holds, and its regions."""


class Regions:
    """The regions of a mirror.

    Args:
        state: The open state file.
        size: Bytes of a region.

    Attributes:
        unsettled: Regions in which legs that have all the data may differ; they are read from
            the first such leg until they are made equal.
        on_unsettled: Called after regions were added there.
    """

    def __init__(self, state: MirrorState, size: int) -> None:
        self.unsettled = set(state.dirty())
        self.on_unsettled: Callable[[], object] = lambda: None
        self._state = state
        self._lock = state.lock
        self._size = size
        self._ranges = RangeLock(state.lock)

    def numbers(self, offset: int, length: int) -> range:
        """Return the numbers of the regions that a range of bytes touches."""
        return range(offset // self._size, -(-(offset + length) // self._size))

    def are_settled(self, offset: int, length: int) -> bool:
        """Return whether the legs that have all the data are equal in a range of bytes, changes aside."""
        return self.unsettled.isdisjoint(self.numbers(offset, length))

    def unsettle(self, numbers: range) -> None:
        """Note that legs may differ in some regions."""
        self.unsettled.update(numbers)
        self.on_unsettled()

    @contextmanager
    def held(self, offset: int, length: int) -> Iterator[None]:
        """Keep a range of bytes from being changed or made equal by others."""
        with self._ranges.held(offset, length):
            yield

    @contextmanager
    def changing(self, offset: int, length: int) -> Iterator[None]:
        """Hold a range of bytes, its regions dirty on stable storage, while it is changed.

        A leg that joins after this was entered finds the regions dirty.

        Raises:
            OSError: They cannot be marked dirty; nothing must be written.
        """
        numbers = self.numbers(offset, length)
        with self._ranges.held(offset, length), self._state.writing(numbers.start, numbers.stop):
            yield

    @contextmanager
    def unsettled_by_failure(self, offset: int, length: int) -> Iterator[None]:
        """Note that legs may differ in a range of bytes, unless what is done meanwhile succeeds."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self.unsettle(self.numbers(offset, length))

    def try_change(self, offset: int, length: int) -> Change | None:
        """Begin a change that needs neither a wait nor a mark.

        Returns:
            For `end_change`; None if it cannot begin at once.
        """
        numbers = range(offset // self._size, -(-(offset + length) // self._size))
        state, lock = self._state, self._lock
        lock.take()
        try:
            if not state.are_dirty(numbers):
                return None
            held = self._ranges.enter_locked(offset, length)
            if held is None:
                return None
            state.begin_locked(numbers)
        finally:
            lock.release()
        return held, numbers

    def end_change(self, change: Change) -> None:
        """End a change of `try_change`, on any thread."""
        held, numbers = change
        lock = self._lock
        lock.take()
        try:
            self._state.end_locked(numbers)
            self._ranges.leave_locked(held)
        finally:
            lock.release()

    @contextmanager
    def alone_in(self, region: int) -> Iterator[None]:
        """Keep changes out of a region."""
        with self._ranges.held(region * self._size, self._size):
            yield

    def idle(self) -> IdleRegions:
        """Return the regions that `forget` may forget after a flush of all legs; to be called before that."""
        return self._state.idle(self.unsettled)

    def forget(self, idle: IdleRegions) -> None:
        """Forget regions that are equal and flushed on all legs.

        Raises:
            OSError: As `MirrorState.forget`.
        """
        self._state.forget(idle, self.unsettled)
