"""Requests of a cache to the layer below that are under way: fetches, and changes of its blocks.

The layer below is slow, so nothing waits for it under the lock of the cache: a fetch whose blocks were
changed meanwhile is stale, and not kept; of changes that overlap, nobody knows which one came last.
"""

import threading
from dataclasses import dataclass
from typing import cast

from vscsihba.handlers.shared.token_lock import TokenLock


@dataclass(slots=True, eq=False)
class Span:
    """Blocks that are being read from, or changed in, the layer below.

    Attributes:
        first: The first block.
        last: The one after the last.
        stale: The blocks were changed by something else since this began.
    """

    first: int
    last: int
    stale: bool

    def meets(self, first: int, last: int) -> bool:
        """Return whether one of the blocks from `first` to before `last` is in it."""
        return self.first < last and first < self.last


class Traffic:
    """The spans under way. Every method is called with the lock held.

    Args:
        lock: The lock of the cache.
    """

    def __init__(self, lock: TokenLock) -> None:
        self._ended = threading.Condition(cast(threading.Lock, lock))
        self._fetches: list[Span] = []
        self._changes: list[Span] = []

    def begin_fetch(self, first: int, last: int) -> Span:
        """Begin to read blocks; they are stale if they are being changed."""
        fetch = Span(first, last, stale=self.is_changing(first, last))
        self._fetches.append(fetch)
        return fetch

    def end_fetch(self, fetch: Span) -> None:
        """End a fetch."""
        self._fetches.remove(fetch)

    def begin_change(self, first: int, last: int) -> Span:
        """Begin to change blocks; what is read or changed at the same time is stale, and so is this then."""
        change = Span(first, last, stale=self.is_changing(first, last))
        self.spoil(first, last)
        for other in self._changes:
            other.stale = other.stale or other.meets(first, last)
        self._changes.append(change)
        return change

    def end_change(self, change: Span) -> None:
        """End a change, and wake those that wait for it."""
        self._changes.remove(change)
        self._ended.notify_all()

    def spoil(self, first: int, last: int) -> None:
        """Mark fetches stale: their blocks are changed."""
        for fetch in self._fetches:
            fetch.stale = fetch.stale or fetch.meets(first, last)

    def is_changing(self, first: int, last: int) -> bool:
        """Return whether blocks are being changed below."""
        return any(change.meets(first, last) for change in self._changes)

    def wait(self, first: int, last: int) -> None:
        """Wait until blocks are not being changed below; the lock is free meanwhile."""
        while self.is_changing(first, last):
            self._ended.wait()
