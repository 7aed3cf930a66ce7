"""Inline verbs of a disk with snapshots: those of its layers, unless these are being exchanged.

A snapshot may be taken between two writes of a batch. The next write is then the first one of the new layer,
and the batch of the former one has ended.
"""

from vscsihba.block import Views
from vscsihba.handlers.base import BatchedWrite, Mover
from vscsihba.handlers.snapshot.snapshot_set import SnapshotSet


class InlineSet:
    """The inline verbs of an open set; the thread that serves the ring calls them.

    Args:
        whole: The set.
    """

    def __init__(self, whole: SnapshotSet) -> None:
        self._set = whole
        self._gate = whole.gate
        self._begun: BatchedWrite | None = None

    def reader(self) -> Mover:
        """Return the read from the present layers; all its names are local, since it runs once a command."""
        whole, file, enter, leave = self._set, self._set.file, self._gate.enter_briefly, self._gate.leave

        def read(views: Views, offset: int, flags: int) -> int:
            enter()
            try:
                move = whole.inline.read
                if move is None or not file.is_in_place:
                    raise BlockingIOError
                return move(views, offset, flags)
            finally:
                leave()

        return read

    def write(self, views: Views, offset: int, flags: int) -> int:
        """Write to the active layer."""
        self._enter()
        try:
            write = self._set.inline.write
            if write is None:
                raise BlockingIOError
            return write(views, offset, flags)
        finally:
            self._gate.leave()

    def first_write(self, views: Views, offset: int, flags: int) -> int:
        """Write to the active layer, as the first of a batch."""
        self._enter()
        try:
            return self._begin(views, offset, flags)
        finally:
            self._gate.leave()

    def next_write(self, views: Views, offset: int, flags: int) -> int:
        """Write to the active layer, maybe another one than that of the last write of the batch."""
        self._enter()
        try:
            parts = self._set.batched
            if parts is not self._begun:
                self.end_writes()
                return self._begin(views, offset, flags)
            return parts.rest(views, offset, flags)
        finally:
            self._gate.leave()

    def end_writes(self) -> None:
        """End a batch."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.end()

    def _begin(self, views: Views, offset: int, flags: int) -> int:
        parts = self._set.batched
        done = parts.first(views, offset, flags)
        self._begun = parts
        return done

    def _enter(self) -> None:
        """Enter the gate.

        Raises:
            BlockingIOError: The layers are being exchanged, or the next process might have others.
        """
        self._gate.enter_briefly()
        if not self._set.file.is_in_place:
            self._gate.leave()
            raise BlockingIOError
