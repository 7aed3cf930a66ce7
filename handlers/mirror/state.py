"""The state file of a mirror: a copy of its metadata, and the dirty region log.

A region of the disk is *dirty* from before any leg is written to until all legs are known to be equal
there, on stable storage. So after a crash, or when a leg comes back, only the dirty regions
have to be made equal. A part of the log that is damaged counts as dirty.

Marking a region takes a sync, a write to a dirty region takes nothing. So one sync marks the regions of all
writes that wait for one, those around them if marks are made often, and some ahead of a sequential writer;
and regions are forgotten late.

This module knows the file, not the legs. docs/formats/mirror.md describes it to the byte.
"""

import errno
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import msgspec

from vscsihba.errors import HostError
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata, decode, encode, identity_text
from vscsihba.handlers.shared import sectors, superblock, token_lock
from vscsihba.handlers.shared.abandonable_pool import attempt
from vscsihba.handlers.shared.durable import sync_directory
from vscsihba.handlers.shared.sectors import PER_SECTOR
from vscsihba.handlers.shared.vectored import read_bytes, write_bytes

_MAGIC = b"VSCSIMIR"
_KIND = "mirror"
_PERIOD = 5.0
"""Seconds; a region that was not written for one or two is forgotten. Marking it anew takes a sync."""
_AHEAD = 64
"""Regions that are marked ahead of a sequential writer at most."""
_DOUBLINGS = 4
"""How often the regions around a mark that are marked with it double, with each mark of a period."""


@dataclass(frozen=True, slots=True)
class IdleRegions:
    """Regions that a flush of all legs lets be forgotten.

    Attributes:
        numbers: Of the regions.
        period: The period that had begun when they were chosen.
    """

    numbers: tuple[int, ...] = ()
    period: int = 0


class _LegOf1(msgspec.Struct, frozen=True):
    """A leg, as version 1 of the format has it."""

    key: str
    identity: str
    whole: bool


class _HeaderOf1(msgspec.Struct, frozen=True, kw_only=True):
    """The header of version 1, when legs had no marks."""

    version: int
    uuid: str
    size: int
    region_size: int
    legs: tuple[_LegOf1, ...]


class MirrorState:
    """The state file, open and locked.

    Attributes:
        metadata: The copy that it has.
        on_mark: Called after regions were marked dirty.
        lock: Guards the log. `Regions` guards the ranges of changes with it too: then a write takes one lock.

    Raises:
        UsageError, InUseError: The file cannot be opened.
        HostError: It is of another kind, or damaged.
        OSError: Its name cannot be put on stable storage.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.on_mark: Callable[[], object] = lambda: None
        self._store = FileHandler(FileHandler.Options(path=path, format="raw"))
        self._store.open()
        self._is_open, self._is_suspect = True, False
        try:
            sync_directory(Path(path).parent)  # its maker may have been killed before it did
            self._inode = Path(path).stat().st_ino
            self.metadata = _metadata_of(superblock.Superblock(self._store, _MAGIC, _KIND).text)
            self._dirty = bytearray()
            for number in range(-(-self.metadata.regions // PER_SECTOR)):
                self._dirty += self._load(number)
        except BaseException as error:
            self._store.close()
            if isinstance(error, HostError):
                raise HostError(f"{path}: {error.message}", cure=error.cure) from error
            raise
        del self._dirty[self.metadata.regions :]
        self._period = 2
        self._last_written = array("Q", bytes(8 * len(self._dirty)))  # the period; 0 before any
        self._period_began = time.monotonic()
        self._writing: list[range] = []
        self._unmarked: list[range] = []
        self._marks = 0
        self.lock = token_lock.TokenLock()
        self._saving = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        if self._is_open:
            self._is_open = False
            self._store.close()

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Write to the file; after a failure, all of it is written anew the next time.

        The kernel tells of a failed flush once, and what was not stored then is lost.

        Raises:
            OSError: It cannot be written.
        """
        if self._is_suspect:
            attempt(self._reopen)
        self._is_suspect = True
        yield
        self._is_suspect = False

    def _reopen(self) -> None:
        self.close()
        store = FileHandler(FileHandler.Options(path=self.path, format="raw"))
        store.open()
        self._store, self._is_open = store, True
        if Path(self.path).stat().st_ino != self._inode:
            self.close()
            raise OSError(errno.ESTALE, f"{self.path} is another file now")
        self._save(0, len(self._dirty), self._dirty)
        store.flush()

    @property
    def regions(self) -> int:
        """The number of regions in the log, which may be those of a disk of an earlier size."""
        return len(self._dirty)

    def dirty(self) -> list[int]:
        """Return the numbers of the dirty regions."""
        regions, at = [], self._dirty.find(1)
        while at >= 0:
            regions.append(at)
            at = self._dirty.find(1, at + 1)
        return regions

    @contextmanager
    def writing(self, first: int, last: int) -> Iterator[None]:
        """Keep the regions from `first` to before `last` dirty, on stable storage, while they are written.

        Raises:
            OSError: That cannot be noted; nothing must be written to them.
        """
        under_way = range(first, last)
        if not self.try_begin(under_way):
            self._mark_and_begin(under_way)
            self.on_mark()
        try:
            yield
        finally:
            self.end(under_way)

    def try_begin(self, regions: range) -> bool:
        """Note that regions are being written, if all are dirty already; `end` has to follow then."""
        with self.lock:
            if not self.are_dirty(regions):
                return False
            self.begin_locked(regions)
            return True

    def are_dirty(self, regions: range) -> bool:
        """Return whether regions are dirty on stable storage; they stay so as long as `lock` is held."""
        return self._dirty.count(1, regions.start, regions.stop) == len(regions)

    def begin_locked(self, regions: range) -> None:
        """Note that dirty regions are being written; the caller holds the lock."""
        self._writing.append(regions)

    def end(self, regions: range) -> None:
        """Note that regions are not written any more."""
        with self.lock:
            self.end_locked(regions)

    def end_locked(self, regions: range) -> None:
        """Do as `end`; the caller holds the lock."""
        self._writing.remove(regions)
        self._touch(regions)

    def _touch(self, regions: range) -> None:
        """Count regions as written in this period, as far as they are in the disk."""
        last_written, period = self._last_written, self._period
        for region in range(regions.start, min(regions.stop, len(last_written))):
            last_written[region] = period

    def _mark_and_begin(self, regions: range) -> None:
        """Mark regions dirty on stable storage, then note that they are being written.

        Raises:
            OSError: That cannot be noted.
        """
        self._unmarked.append(regions)
        try:
            with self._saving:
                if self.try_begin(regions):  # another thread has marked them meanwhile
                    return
                unmarked = self._unmarked.copy()  # others may add theirs meanwhile
                marks = [self._likely_with(wanted) for wanted in unmarked]
                with self._storing():
                    # A smaller disk may be recorded here, by no majority.
                    if regions.stop > len(self._dirty):
                        self._grow(len(self._dirty), regions.stop)
                    end = len(self._dirty)
                    inside = (range(mark.start, min(mark.stop, end)) for mark in marks)
                    self._store_marks([mark for mark in inside if mark])
                self.try_begin(regions)
        finally:
            self._unmarked.remove(regions)

    def _store_marks(self, marks: list[range]) -> None:
        """Mark regions dirty on stable storage with one flush."""
        wanted = bytearray(self._dirty)
        numbers: set[int] = set()
        for mark in marks:
            wanted[mark.start : mark.stop] = b"\1" * len(mark)
            numbers.update(range(mark.start // PER_SECTOR, -(-mark.stop // PER_SECTOR)))
        for number in sorted(numbers):
            self._save(number * PER_SECTOR, number * PER_SECTOR + 1, wanted)
        self._store.flush()
        self._marks += 1
        for mark in marks:
            self._touch(mark)
            self._dirty[mark.start : mark.stop] = b"\1" * len(mark)

    def _likely_with(self, regions: range) -> range:
        """Return the regions to be marked with some, since they are likely to be written soon.

        These are the ones around them, the more the more marks this period has had already; and behind them
        as many as are dirty right before them.
        """
        size = 1 << min(self._marks, _DOUBLINGS)
        start = max(0, regions.start - _AHEAD)
        clean = self._dirty.rfind(0, start, regions.start)
        ahead = regions.start - max(start, clean + 1)
        return range(regions.start // size * size, max(-(-regions.stop // size) * size, regions.stop + ahead))

    def mark_all(self) -> None:
        """Mark every region dirty, on stable storage.

        Raises:
            OSError: That cannot be noted.
        """
        with self.writing(0, len(self._dirty)):
            pass

    def idle(self, unequal: Container[int]) -> IdleRegions:
        """Begin a new period if it is time, and return the regions that could be forgotten after a flush.

        Args:
            unequal: Regions that are not made equal yet.

        Returns:
            Regions that are equal on all legs, and were not written for a period.
        """
        if time.monotonic() < self._period_began + _PERIOD:
            return IdleRegions()
        with self.lock:
            since, self._period, self._marks = self._period - 1, self._period + 1, 0
            self._period_began = time.monotonic()
            last_written, writing = self._last_written[:], self._writing.copy()
        # Without the lock, for which writes would wait: `forget` looks again.
        idle = [
            region
            for region in self.dirty()
            if region < len(last_written)
            and last_written[region] < since
            and region not in unequal
            and not any(region in regions for regions in writing)
        ]
        return IdleRegions(tuple(idle), since + 2)

    def until_idle(self) -> float | None:
        """Return the seconds until `idle` may find regions; None if no region is dirty."""
        if self._dirty.find(1) < 0:
            return None
        return max(0.0, self._period_began + _PERIOD - time.monotonic())

    def forget(self, idle: IdleRegions, unequal: Container[int]) -> None:
        """Let regions that `idle` has returned be dirty no more, unless something has happened to them since.

        To be called when every leg has flushed after that call, which may have taken several periods. A
        region that stays dirty by mistake does no harm, so this is not synced.

        Raises:
            OSError: The file cannot be written.
        """
        with self._saving, self._storing():
            for number, regions in groupby(idle.numbers, lambda region: region // PER_SECTOR):
                with self.lock:  # anew for each sector, since writes wait for it
                    equal = [
                        region
                        for region in regions
                        if region < len(self._dirty)
                        and self._is_idle(region, since=idle.period)
                        and region not in unequal
                    ]
                    for region in equal:
                        self._dirty[region] = 0
                if equal:
                    self._save(number * PER_SECTOR, number * PER_SECTOR + 1, self._dirty)

    def clear(self) -> None:
        """Clear the log: all legs are equal and flushed, and are not written any more.

        As with `forget`, this is not synced; `save` does that.

        Raises:
            OSError: The file cannot be written.
        """
        with self._saving, self._storing():
            self._save(0, len(self._dirty), bytearray(len(self._dirty)))

    def save(self, metadata: Metadata) -> None:
        """Put a new copy of the metadata on stable storage.

        The log grows with the disk, and what is new is dirty.

        Raises:
            OSError: It cannot be written; the old copy counts then, or the new one.
        """
        with self._saving:
            have, want = len(self._dirty), metadata.regions
            with self._storing():
                if want > have:
                    self._grow(have, want)
                # Read anew: after a failure, the slot that can be read must not be written to.
                superblock.Superblock(self._store, _MAGIC, _KIND).replace(encode(metadata))
            self.metadata = metadata
            if want < have:
                with self.lock:
                    del self._dirty[want:], self._last_written[want:]

    def _grow(self, have: int, want: int) -> None:
        self._store.resize(max(self._store.geometry.size, _file_size(want)))
        with self.lock:
            self._dirty.extend(b"\1" * (want - have))
            self._last_written.frombytes(bytes(8 * (want - have)))
        self._save(have, want, self._dirty)

    def _is_idle(self, region: int, *, since: int) -> bool:
        """Return whether a region is not being written, and was not in or after a period."""
        return self._last_written[region] < since and not any(region in regions for regions in self._writing)

    def _load(self, number: int) -> bytes:
        states = sectors.decode(
            number, read_bytes(self._store, _place(number), sectors.SECTOR), self.metadata.uuid
        )
        return b"\1" * PER_SECTOR if states is None or max(states) > 1 else states

    def _save(self, first: int, last: int, dirty: bytearray) -> None:
        """Write the sectors with the regions from `first` to before `last` as `dirty` has them."""
        for number in range(first // PER_SECTOR, (last - 1) // PER_SECTOR + 1):
            states = dirty[number * PER_SECTOR : (number + 1) * PER_SECTOR]
            write_bytes(self._store, _place(number), sectors.encode(number, states, self.metadata.uuid))


def create_state(path: str, metadata: Metadata) -> None:
    """Make a state file in which every region is dirty.

    After a crash it is there as a whole or not at all.

    Raises:
        UsageError, HostError: The system refuses to make a file there.
    """
    new = Path(f"{path}.{metadata.uuid}.new")  # nobody else's file has this name
    new.unlink(missing_ok=True)
    store = FileHandler(FileHandler.Options(path=str(new), size=_file_size(metadata.regions)))
    store.open()
    try:
        for number in range(-(-metadata.regions // PER_SECTOR)):
            write_bytes(store, _place(number), sectors.encode(number, b"\1" * PER_SECTOR, metadata.uuid))
        superblock.create(store, encode(metadata), _MAGIC, _KIND)
        new.replace(path)
        sync_directory(Path(path).parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        store.close()


def _metadata_of(text: bytes) -> Metadata:
    """Return the metadata of a state file, also of one of version 1.

    Raises:
        HostError: They cannot be understood.
    """
    try:
        old = msgspec.json.decode(text, type=_HeaderOf1)
    except msgspec.MsgspecError:
        return decode(text)
    return _migrated(old) if old.version == 1 else decode(text)


def _migrated(old: _HeaderOf1) -> Metadata:
    """Return the metadata that version 1 amounts to: legs without marks, known by their media's names."""
    return Metadata(
        uuid=old.uuid,
        event=0,
        session="",
        size=old.size,
        region_size=old.region_size,
        legs=tuple(
            LegEntry(
                uuid=str(uuid.uuid4()),
                state="in" if leg.whole else "behind",
                event=0,
                identity=identity_text(leg.identity),
            )
            for leg in old.legs
        ),
    )


def _place(number: int) -> int:
    return superblock.END + number * sectors.SECTOR


def _file_size(regions: int) -> int:
    return _place(-(-regions // PER_SECTOR))
