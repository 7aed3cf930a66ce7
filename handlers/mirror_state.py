"""What a mirror remembers: its legs, and where they may differ.

A file of its own says of each leg whether it has all the data, and of each region of the disk
whether it is *dirty*: written since the legs were last known to be equal there. A region
is dirty on stable storage before any leg is written to, so after a crash, or when a leg comes back,
only the dirty ones have to be made equal. A part of the map that is damaged counts as dirty.

This module knows the file, not the legs.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vscsihba.errors import HostError
from vscsihba.handlers import sectors, superblock
from vscsihba.handlers.durable import sync_directory
from vscsihba.handlers.file import FileHandler
from vscsihba.handlers.sectors import PER_SECTOR
from vscsihba.handlers.vectored import read_bytes, write_bytes

_MAGIC = b"VSCSIMIR"
_KIND = "mirror"
_VERSION = 1
_PERIOD = 5.0
"""Seconds; a region that was not written for one or two of them is forgotten. Noting it anew takes a sync."""


class LegRecord(msgspec.Struct, frozen=True):
    """What is known of one leg.

    Attributes:
        key: Tells which one in the document it is.
        identity: Of its medium.
        whole: It has all the data.
    """

    key: str
    identity: str
    whole: bool


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the mirror.

    Attributes:
        version: Of this format.
        uuid: Names it.
        size: Capacity in bytes.
        region_size: Bytes of a region.
        legs: Those that it has, or has lost.
    """

    version: int = _VERSION
    uuid: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    size: int
    region_size: int
    legs: tuple[LegRecord, ...]

    @property
    def regions(self) -> int:
        """Regions of the disk."""
        return -(-self.size // self.region_size)


class MirrorState:
    """The state file, open and locked.

    Attributes:
        header: What it says of the mirror.

    Raises:
        UsageError, InUseError: The file cannot be opened.
        HostError: It is of another kind, or damaged.
    """

    def __init__(self, path: str) -> None:
        self._store = FileHandler(FileHandler.Options(path=path))
        self._store.open()
        try:
            self._superblock = superblock.Superblock(self._store, _MAGIC, _KIND)
            self.header = _decode(self._superblock.text)
            self._dirty = bytearray()
            for number in range(-(-self.header.regions // PER_SECTOR)):
                self._dirty += self._load(number)
        except BaseException as error:
            self._store.close()
            if isinstance(error, HostError):
                raise HostError(f"{path}: {error.message}", cure=error.cure) from error
            raise
        del self._dirty[self.header.regions :]
        self._recent = bytearray(len(self._dirty))
        self._earlier = bytearray(len(self._dirty))
        self._period_began = time.monotonic()
        self._writing: list[range] = []
        self._lock = threading.Lock()
        self._saving = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def dirty(self) -> list[int]:
        """Return the numbers of the dirty regions."""
        found, at = [], self._dirty.find(1)
        while at >= 0:
            found.append(at)
            at = self._dirty.find(1, at + 1)
        return found

    @contextmanager
    def writing(self, first: int, last: int) -> Iterator[None]:
        """Keep the regions from `first` to before `last` dirty, on stable storage, while they are written.

        Raises:
            OSError: That cannot be noted; nothing must be written to them.
        """
        under_way = range(first, last)
        if not self._begin(under_way):
            with self._saving:
                wanted = bytearray(self._dirty)
                wanted[first:last] = b"\1" * len(under_way)
                self._save(first, last, wanted)
                self._store.flush()
                with self._lock:
                    self._dirty[first:last] = wanted[first:last]
                self._begin(under_way)
        try:
            yield
        finally:
            with self._lock:
                self._writing.remove(under_way)
                self._recent[first:last] = b"\1" * len(under_way)

    def settle(self) -> None:
        """Forget regions that were not written for a while.

        To be called when every leg has flushed, all of them since `settle` was last called.
        A region that stays dirty by mistake does no harm, so this is not synced.

        Raises:
            OSError: The file cannot be written.
        """
        if time.monotonic() < self._period_began + _PERIOD:
            return
        with self._saving:
            with self._lock:
                idle = [region for region in self.dirty() if self._is_idle(region)]
                for region in idle:
                    self._dirty[region] = 0
                self._recent, self._earlier = bytearray(len(self._dirty)), self._recent
                self._period_began = time.monotonic()
            for number in {region // PER_SECTOR for region in idle}:
                self._save(number * PER_SECTOR, number * PER_SECTOR + 1, self._dirty)

    def clear(self) -> None:
        """Forget every region: all legs are equal, and will not be written to any more.

        Raises:
            OSError: The file cannot be written.
        """
        with self._saving:
            self._save(0, len(self._dirty), bytearray(len(self._dirty)))
            self._store.flush()

    def update(self, *, size: int | None = None, legs: tuple[LegRecord, ...] | None = None) -> None:
        """Keep a new size, or what is known of the legs, on stable storage.

        The map grows with the disk, and what is new is dirty.

        Raises:
            OSError: It cannot be written.
        """
        with self._saving:
            header = msgspec.structs.replace(
                self.header, size=size or self.header.size, legs=self.header.legs if legs is None else legs
            )
            have, want = len(self._dirty), header.regions
            if want > have:
                self._store.resize(max(self._store.geometry.size, _file_size(want)))
                with self._lock:
                    self._dirty.extend(b"\1" * (want - have))
                    self._recent.extend(bytes(want - have))
                    self._earlier.extend(bytes(want - have))
                self._save(have, want, self._dirty)
            if header != self.header:
                self._superblock.replace(msgspec.json.encode(header))
                self.header = header
            if want < have:
                with self._lock:
                    for row in (self._dirty, self._recent, self._earlier):
                        del row[want:]

    def _begin(self, regions: range) -> bool:
        """Note that regions are being written, if all are dirty already."""
        with self._lock:
            if self._dirty.count(1, regions.start, regions.stop) < len(regions):
                return False
            self._writing.append(regions)
            return True

    def _is_idle(self, region: int) -> bool:
        written = self._recent[region] or self._earlier[region]
        return not written and not any(region in regions for regions in self._writing)

    def _load(self, number: int) -> bytes:
        states = sectors.decode(
            number, read_bytes(self._store, _place(number), sectors.SECTOR), self.header.uuid
        )
        return b"\1" * PER_SECTOR if states is None or max(states) > 1 else states

    def _save(self, first: int, last: int, dirty: bytearray) -> None:
        """Write the sectors with the regions from `first` to before `last` as `dirty` has them."""
        for number in range(first // PER_SECTOR, (last - 1) // PER_SECTOR + 1):
            states = dirty[number * PER_SECTOR : (number + 1) * PER_SECTOR]
            write_bytes(self._store, _place(number), sectors.encode(number, states, self.header.uuid))


def create_state(path: str, header: Header) -> None:
    """Make a state file in which every region is dirty.

    After a crash it is there as a whole or not at all.

    Raises:
        UsageError, HostError: The system refuses to make a file there.
    """
    new = Path(path + ".new")
    new.unlink(missing_ok=True)
    store = FileHandler(FileHandler.Options(path=str(new), create=True, size=_file_size(header.regions)))
    store.open()
    try:
        for number in range(-(-header.regions // PER_SECTOR)):
            write_bytes(store, _place(number), sectors.encode(number, b"\1" * PER_SECTOR, header.uuid))
        superblock.create(store, msgspec.json.encode(header), _MAGIC, _KIND)
        new.replace(path)
        sync_directory(Path(path).parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        store.close()


def _decode(text: bytes) -> Header:
    fields = msgspec.json.decode(text)
    if fields.get("version") != _VERSION:
        raise HostError(
            f"the mirror is of version {fields.get('version')}, known is {_VERSION}",
            cure="open it with a newer release",
        )
    return msgspec.convert(fields, Header)


def _place(number: int) -> int:
    return superblock.END + number * sectors.SECTOR


def _file_size(regions: int) -> int:
    return _place(-(-regions // PER_SECTOR))
