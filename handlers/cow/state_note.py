"""The note of a session: the states of clusters that no flush has stored yet, for the process after this one.

The note is a file on a tmpfs (`tmpfs_store`), with a byte for each cluster: its state plus one, 0 if the
map in the overlay file is right. Its flag says that a flush has failed: the contents of clusters that were
stored since the flush before may be gone, so a later process must not believe their states.

This module knows no contents and no map.
"""

from collections.abc import Iterable, Iterator

from vscsihba.handlers.cow.overlay_note import FileId
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore

FAILURES = (OSError, MemoryError)


class StateNote:
    """The note of this process, open and locked.

    Args:
        session: Its name.
        place: The overlay file.

    Attributes:
        is_usable: States that are put there survive this process. If not, none may be put there.

    Raises:
        OSError: There is no room for it.
        HostError: The directory is another user's.
    """

    def __init__(self, session: str, place: FileId) -> None:
        self.is_usable = True
        self._store = TmpfsStore(session, about=place.encode())
        self._is_flagged = False

    def reserve(self, first: int, last: int) -> None:
        """Set memory aside for the states of the clusters from `first` to before `last`.

        Raises:
            OSError: There is none; nothing has changed.
        """
        self._store.reserve(first, last - first)

    def put_some(self, first: int, last: int, state: int) -> int:
        """Put the state of the clusters from `first` to before `last`; return for how many that was done.

        Raises:
            OSError: There is no room; nothing has changed.
        """
        return self._store.put_some(first, bytes([state + 1]) * (last - first))

    def flag(self) -> None:
        """Let no later process believe in the clusters that a flush was to store, which has failed.

        If that cannot be noted, the note is removed, and is not usable any more: a later process then finds
        the overlay as of the last flush.
        """
        try:
            self._store.set_flag(on=True)
            self._is_flagged = True
        except FAILURES:
            self.is_usable = False
            self._store.discard()

    def take_back(self, clusters: Iterable[int]) -> None:
        """Take back the states of clusters that are lost, then the flag, so that states put later count.

        If that fails, the flag stays, and the note is not usable any more.
        """
        if self._is_flagged:
            try:
                for first, last in _runs(sorted(clusters)):
                    self._store.put(first, bytes(last - first))
                self._store.set_flag(on=False)
                self._is_flagged = False
            except FAILURES:
                self.is_usable = False

    def withdraw(self) -> None:
        """Try again to remove a note that could neither be flagged nor removed."""
        if not (self.is_usable or self._is_flagged):
            self._store.discard()

    def close(self, *, forget: bool) -> None:
        """Close the note, and remove it if nothing in it is needed any more."""
        self._store.close(forget=forget)


def _runs(clusters: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first cluster of each run of adjacent ones, in order, and the one after its last."""
    first = last = -1
    for cluster in clusters:
        if cluster != last:
            if first < last:
                yield first, last
            first = cluster
        last = cluster + 1
    if first < last:
        yield first, last
