"""An overlay: clusters of a disk that are stored apart from its base, and the map that says which.

The order of writing is all there is to its safety. The content of a cluster goes to its
place first, its new state stays in memory; a flush puts the contents on stable storage,
then the states, each map sector as a whole. So whenever a state that says "stored here"
is on stable storage, the content is too, and a crash leaves each cluster as it was at the
last flush, or as it was made since. Freeing a cluster needs no order: its place then reads
as zeroes, which is what its new state says.

That is for a machine that stops. A process that is killed loses nothing at all: new states
are in a note too before they are acknowledged (`state_note`), and the next to open the overlay finds
them there.

This module knows the file (through a handler, its *store*) and no base.
"""

import errno
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial

import msgspec

from vscsihba.block import Buffer, Extent, Views
from vscsihba.errors import FlushError, HostError, MediumError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cow.cluster_map import ClusterMap
from vscsihba.handlers.cow.format import (
    DATA,
    LOST,
    MAGIC,
    PER_GROUP,
    ZERO,
    Header,
    decode_header,
    encode_header,
    file_size,
    place_of,
    place_of_sector,
)
from vscsihba.handlers.cow.overlay_note import FileId, note_of
from vscsihba.handlers.cow.state_note import StateNote
from vscsihba.handlers.shared import sectors, superblock, token_lock
from vscsihba.handlers.shared.medium_errors import shift_medium_errors
from vscsihba.handlers.shared.sectors import PER_SECTOR
from vscsihba.handlers.shared.tmpfs_store import forget
from vscsihba.handlers.shared.undo import Undo
from vscsihba.handlers.shared.vectored import write_bytes

_KIND = "overlay"
FLUSH_FAILED = "a flush has failed that was to store this"


class Overlay:
    """The clusters in an open overlay file.

    `runs`, `read` and `overwrite` may be called by any number of threads at once; what
    changes states (`mark`, `flush`, `resize`) serialises itself.

    Args:
        store: An open handler with the file's bytes.
        place: Where the file is.
        recover: Take over (True) or leave alone (False) what a killed process has left, where it is not clear
            for which file; None raises then.

    Attributes:
        header: The header of the overlay.
        map: The states of the clusters.
        broken: A flush has failed, and contents that were not on stable storage may be gone.

    Raises:
        HostError: It is no overlay, or is damaged.
    """

    def __init__(self, store: Handler, place: FileId, *, recover: bool | None = None) -> None:
        self.store = store
        self._place = place
        self._superblock = superblock.Superblock(store, MAGIC, _KIND)
        self.header = decode_header(self._superblock.text)
        self.map = ClusterMap()
        self.broken = False
        self._changing = token_lock.TokenLock()
        self._flushing = threading.Lock()
        self._beginning = threading.Lock()
        self._note: StateNote | None = None
        self._taken_over = ""
        self._fresh: set[int] = set()
        self._doubtful: frozenset[int] = frozenset()
        self._load_states()
        self._recall_states(recover=recover)

    def begin(self) -> None:
        """Prepare for writing.

        Raises:
            OSError: As the store's, or there is no room for a note; nothing has changed.
        """
        session = str(uuid.uuid4())
        note = StateNote(session, self._place)
        with Undo() as failing:
            failing.callback(note.close, forget=True)
            self.replace_header(msgspec.structs.replace(self.header, session=session, clearing=False))
            failing.pop_all()
        self._note = note
        self._forget_taken_over()  # if it stays, it is never found again: no header names it

    def _forget_taken_over(self) -> None:
        taken_over, self._taken_over = self._taken_over, ""
        if taken_over:
            with suppress(HostError):
                forget(taken_over)

    def end(self) -> None:
        """Flush, and write no more until `begin`.

        Raises:
            OSError: The flush failed; writing goes on.
        """
        self.flush()
        note, self._note = self._note, None
        if note is not None:
            note.close(forget=True)

    def close(self) -> None:
        """Flush, and close the store in any case.

        Raises:
            OSError: The flush failed; what it had to keep is there for the next to open the overlay.
        """
        with ExitStack() as closing:
            closing.callback(self.store.close)
            if self._note is not None:
                closing.callback(self._leave_note)
                self.end()

    def abandon(self) -> None:
        """Close the store and discard unflushed changes: the overlay is not needed any more."""
        with ExitStack() as closing:
            closing.callback(self.store.close)
            note, self._note = self._note, None
            if note is not None:
                note.close(forget=True)

    def _leave_note(self) -> None:
        if self._note is not None:
            self._note.withdraw()
            self._note.close(forget=False)

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return self.header.cluster_size

    @property
    def states(self) -> bytearray:
        """The state of each cluster."""
        return self.map.states

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, Extent]]:
        """Cut a range of the disk where the state changes; return each state with its part."""
        return self.map.runs(offset, length, self.cluster_size, lost=self.broken)

    def is_all(self, state: int, offset: int, length: int) -> bool:
        """Return whether every cluster that a range touches has `state`."""
        size = self.cluster_size
        return self.map.is_all(state, offset // size, -(-(offset + length) // size))

    def read(self, offset: int, views: Views) -> None:
        """Fill `views` from the places of the clusters from `offset` on, whatever their states.

        Raises:
            OSError: As the store's.
        """
        buffer = Buffer(views)
        for place, at, count in self._places(offset, buffer.length):
            with shift_medium_errors(at - place):
                self.store.read(place, buffer.take(at - offset, count))

    def overwrite(self, offset: int, views: Views) -> None:
        """Store `views` at the places of the clusters from `offset` on; their states stay.

        Raises:
            OSError: As the store's.
        """
        buffer = Buffer(views)
        for place, at, count in self._places(offset, buffer.length):
            with shift_medium_errors(at - place):
                self.store.write(place, buffer.take(at - offset, count))

    def place(self, offset: int) -> int:
        """Return the store's offset of a byte of the disk."""
        return place_of(offset, self.header.cluster_size)

    def check_kept(self, offset: int, length: int) -> None:
        """Refuse a range of stored clusters that a failed flush may have lost since their states were read.

        Raises:
            MediumError: A cluster of the range may be lost.
        """
        if self.broken:
            size, doubtful = self.cluster_size, self._doubtful  # before the states, which follow it
            for number in range(offset // size, -(-(offset + length) // size)):
                if number in doubtful or self.states[number] == LOST:
                    raise MediumError(max(offset, number * size), FLUSH_FAILED)

    def mark(self, first: int, last: int, state: int, *, broken: bool | None = None) -> None:
        """Set the state of the clusters from `first` to before `last`; the next flush stores it.

        Args:
            first: Number of a cluster.
            last: Likewise.
            state: The new one.
            broken: The attribute `broken` before the contents were written. If a flush has failed since,
                they may be lost, and the states stay.

        Raises:
            MediumError: The contents may be lost.
            OSError: There is no room to let it survive this process, or a former failure prevents that;
                nothing has changed. After another failure than that some of the clusters may have it, the
                first ones.
        """
        if first < last:
            note = self._note or self._begun()
            with self._changing:
                self._mark(note, first, last, state, broken=broken)

    def try_mark(self, first: int, last: int, state: int, store: Callable[[], None]) -> None:
        """Store the contents of clusters and set their state, as `mark` does, if that needs no wait.

        Args:
            first: Number of a cluster.
            last: That of the one after the last.
            state: The new one.
            store: Stores the contents.

        Raises:
            BlockingIOError: It has to wait; nothing has changed.
            OSError: As `mark`'s; the contents may be stored.
        """
        note = self._note
        if note is None or self.broken or not self._changing.acquire(blocking=False):
            raise BlockingIOError
        try:
            store()
            self._mark(note, first, last, state, broken=False)
        finally:
            self._changing.release()

    def _mark(self, note: StateNote, first: int, last: int, state: int, *, broken: bool | None) -> None:
        if broken is not None and broken != self.broken:
            raise MediumError(first * self.cluster_size, FLUSH_FAILED)
        if not note.is_usable:
            raise OSError(errno.EIO, FLUSH_FAILED)
        note.reserve(first, last)
        while first < last:
            # Memory never says other than the note, even if only a part of it could be put there.
            count = note.put_some(first, last, state)
            if state == DATA:
                some = range(first, first + count)
                self._fresh.update(cluster for cluster in some if self.states[cluster] != DATA)
            self.map.set(first, first + count, state)
            first += count

    def free(self, first: int, last: int) -> None:
        """Make the clusters from `first` to before `last` read as zeroes, and give back their storage.

        Raises:
            OSError: As `mark`'s; of several groups of clusters the first ones may be zeroes then.
        """
        for at in range(first, last, PER_GROUP):
            stop = min(last, at + PER_GROUP)
            stored = [run for state, run in self._cluster_runs(at, stop) if state == DATA]
            self.mark(at, stop, ZERO)
            for run in stored:
                self.release(run.offset, run.length)

    def release(self, offset: int, length: int) -> None:
        """Free the storage of a range that is not needed, as far as that is possible."""
        if self.store.capabilities.unmap:
            for place, _, count in self._places(offset, length):
                with suppress(OSError):  # storage that could not be given back is no harm
                    self.store.unmap(place, count)

    def clear(self, header: Header) -> None:
        """Drop every cluster and replace the header, atomically.

        Raises:
            OSError: As the store's; the overlay is what it was, or holds nothing.
        """
        wanted = file_size(header.clusters, header.cluster_size)
        if self.store.geometry.size < wanted:
            self.store.resize(wanted)
        stored = [run for state, run in self.runs(0, self.header.size) if state == DATA]
        self.replace_header(msgspec.structs.replace(header, session="", clearing=True))
        note, self._note = self._note, None
        if note is not None:
            note.close(forget=True)
        self._forget_states()
        self.replace_header(msgspec.structs.replace(self.header, clearing=False))
        for run in stored:
            self.release(run.offset, run.length)

    def flush(self) -> None:
        """Flush contents to stable storage, then the states of their clusters.

        Raises:
            OSError: As the store's; what was not kept is tried again by the next flush.
        """
        with self._flushing:
            if self.broken:
                if self._note is not None:
                    self._note.withdraw()  # an earlier attempt may have failed
                raise FlushError(errno.EIO, FLUSH_FAILED)
            self._superblock.settle()  # a header that could not be replaced must not come to count
            with self._changing:
                dirty, self.map.dirty = self.map.dirty, set()
                fresh, self._fresh = self._fresh, set()
                # Copies: what is marked from now on has contents that this flush may not cover.
                changed = {number: self.map.sector(number, self.header.map_name) for number in dirty}
            with ExitStack() as failing:
                failing.callback(self._mark_again, dirty)
                self._flush_store(fresh)
                for number, sector in sorted(changed.items()):
                    write_bytes(self.store, place_of_sector(number, self.cluster_size), sector)
                if changed:
                    self._flush_store(set())
                failing.pop_all()

    def _flush_store(self, fresh: set[int]) -> None:
        """Flush the store. If that fails, contents that were written since the last flush may be gone.

        A cluster that was stored since then may have lost the rest of its content as well, which nobody has
        written, so it is not read any more. Whoever opens the overlay next finds it as of the last flush.
        Contents that were written while the flush was under way may be gone, too. The first failure says
        all: no flush succeeds after it, and none is tried.

        Args:
            fresh: The clusters that were stored since the last flush and before this one.
        """
        try:
            self.store.flush()
        except OSError:
            if not self.broken:
                # Before any lock is waited for: requests that are under way look at it when they end.
                self._doubtful = frozenset(fresh | self._fresh)
                self.broken = True
                if self._note is not None:
                    self._note.flag()  # at once: after a kill, nobody else knows of this failure
                with self._changing:
                    self._lose(fresh | self._fresh)
            raise

    def _lose(self, fresh: set[int]) -> None:
        lost = [cluster for cluster in fresh if self.states[cluster] == DATA]
        for cluster in lost:
            self.states[cluster] = LOST
        self._doubtful = frozenset()
        if lost:
            self._forget_taken_over()  # it speaks of them
        if self._note is not None:
            self._note.take_back(lost)

    def _mark_again(self, dirty: set[int]) -> None:
        """Keep states for the next flush that this one may not have stored."""
        with self._changing:
            self.map.dirty |= dirty

    def resize(self, size: int) -> None:
        """Set the size of the disk; clusters that are added read as zeroes.

        Raises:
            OSError: The store cannot grow; the disk has the size that it had.
        """
        before, clusters = self.header.clusters, msgspec.structs.replace(self.header, size=size).clusters
        if clusters > before:
            wanted = file_size(clusters, self.cluster_size)
            if self.store.geometry.size < wanted:
                self.store.resize(wanted)
            with self._changing:
                self.states.extend(bytes(max(0, clusters - len(self.states))))
            self.mark(before, clusters, ZERO)
        self.replace_header(msgspec.structs.replace(self.header, size=size))  # `mark` may have begun anew

    def replace_header(self, header: Header) -> None:
        """Put a new header on stable storage, with everything written before.

        Raises:
            OSError: As the store's; the header is what it was.
        """
        self.flush()
        self._superblock.replace(encode_header(header), flush=partial(self._flush_store, set()))
        self.header = header

    def _begun(self) -> StateNote:
        """Return the note that states go to; begin if a former attempt to do so has failed."""
        with self._beginning:
            if self._note is None:
                self.begin()
            assert self._note is not None  # noqa: S101  # `begin` has made it
            return self._note

    def _load_states(self) -> None:
        header = self.header
        if self.store.geometry.size < file_size(header.clusters, header.cluster_size):
            raise HostError("the overlay is cut short", cure="restore it from a copy")
        if header.clearing:
            self._forget_states()
            return
        self.map.load(self.store, header)

    def _forget_states(self) -> None:
        """Clear every state in memory; the next flush puts that on stable storage."""
        with self._changing:
            self.map.clear(self.header.clusters)

    def _recall_states(self, *, recover: bool | None) -> None:
        """Take over the states that a killed process had not flushed."""
        note = note_of(self.header.session, self._place, recover=recover)
        if note is None:
            return
        self._taken_over = self.header.session
        if not self.header.clearing:
            self._fresh = self.map.take_over(note.content, lost=note.flag)

    def _cluster_runs(self, first: int, last: int) -> Iterator[tuple[int, Extent]]:
        size = self.cluster_size
        return self.runs(first * size, (last - first) * size)

    def _places(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range at the borders of groups: place in the store, offset on the disk, bytes."""
        end, group = offset + length, PER_GROUP * self.cluster_size
        while offset < end:
            stop = min(end, (offset // group + 1) * group)
            yield self.place(offset), offset, stop - offset
            offset = stop


def format_overlay(store: Handler, header: Header) -> None:
    """Format an open, writable store of the right size as an empty overlay.

    Raises:
        HostError: The base has too long a name.
        OSError: As the store's.
    """
    for number in range(-(-header.clusters // PER_SECTOR)):
        sector = sectors.encode(number, b"", header.map_name)
        write_bytes(store, place_of_sector(number, header.cluster_size), sector)
    superblock.create(store, encode_header(header), MAGIC, _KIND)
