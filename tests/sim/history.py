"""The history of a disk as its initiators saw it, and the judgement of what it returns.

Every request is a `Request` with a beginning and an end in virtual time. From these follows for
each sector which contents may be read: a content is out of date once a newer request *counts*,
which began after the older one had ended. A request counts

* while the process lives, or after ``kill -9``: when it was acknowledged;
* after a power cut: when it was acknowledged with FUA, or before a flush began that was acknowledged.

A request that failed may have happened or not, each sector for itself, and no other sector may have
changed. When a flush fails after the kernel has lost pages, everything unflushed is in doubt, since
the initiator was told.

The contents name the request and the sector that they were written by, so that a wrong one can be
named: stale, foreign, torn or lost.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

SECTOR = 512
ZEROES = bytes(SECTOR)
_STAMP = struct.Struct("<4sII")
_MAGIC = b"sim\x01"


class HistoryError(AssertionError):
    """A disk has broken a promise."""


def stamped(number: int, sector: int) -> bytes:
    """Return the content of a sector that names its request and its place."""
    return (_STAMP.pack(_MAGIC, number, sector) * (SECTOR // _STAMP.size + 1))[:SECTOR]


def explain(content: bytes) -> str:
    """Name a content in words."""
    if content == ZEROES:
        return "zeroes"
    magic, number, sector = _STAMP.unpack_from(content)
    if magic == _MAGIC:
        whole = "" if content == stamped(number, sector) else " (torn)"
        return f"request {number} of sector {sector}{whole}"
    return f"foreign bytes {content[:8].hex()}..."


@lru_cache(8)
def _contents(content: bytes) -> tuple[frozenset[bytes], ...]:
    """Return the only content of each sector."""
    return tuple(frozenset((content[at : at + SECTOR],)) for at in range(0, len(content), SECTOR))


@dataclass(eq=False)
class Request:
    """One request that changes sectors.

    Attributes:
        number: Counts requests.
        first: Its first sector.
        contents: The new content of each of its sectors; one of several, if it is not known which.
        began: Virtual time.
        ended: Likewise; None while it is under way.
        acknowledged: It succeeded.
        durable: A power cut cannot take it back.
        doubted: Its data was lost after it had been acknowledged, and the initiator told.
    """

    number: int
    first: int
    contents: Sequence[frozenset[bytes]]
    began: float
    ended: float | None = None
    acknowledged: bool = False
    durable: bool = False
    doubted: bool = False


class History:
    """The requests of the initiators of one disk, and their answers.

    Args:
        content: Content of the disk at first, all of it on stable storage.

    Attributes:
        snapshots: Contents that each sector of a snapshot may have, for every snapshot that may exist.
        unknown: Names of snapshots that may be of one of two sizes.
        untold: When a flush failed that no initiator had sent, such as a resize's; None once one was told.
        told: How many losses of unflushed data initiators were told of.
        sectors: How many the disk has.
    """

    def __init__(self, content: bytes) -> None:
        self.snapshots: dict[str, list[frozenset[bytes]]] = {}
        self.unknown: set[str] = set()
        self.told = 0
        self.untold: int | None = None
        self._count = 0
        self._clock = 0
        sectors = _contents(content)
        first = Request(0, 0, sectors, 0, 0, acknowledged=True, durable=True)
        self._sectors = [[first] for _ in sectors]
        self._settled = bytearray(content)
        self._at_first = content
        self._in_doubt: set[int] = set()
        self.sectors = len(sectors)
        self._other_sizes: set[int] = set()
        self._former_sizes: set[int] = set()
        self._open: list[Request] = []
        self._reads: list[int] = []
        self._taking: list[frozenset[bytes]] = []
        self._taken: list[frozenset[bytes]] = []

    def begin_resize(self, sectors: int) -> Request:
        """Note that a resize begins, with no other request under way; pass what is returned to `end_resize`.

        It makes the sectors between both ends of the disk zeroes: they are new, or cut off. If it fails, they
        may be what they were, or zeroes.
        """
        smaller, larger = sorted((self.sectors, sectors))
        return self._begin_resize(sectors, smaller, [frozenset((ZEROES,))] * (larger - smaller))

    def _begin_resize(self, sectors: int, first: int, contents: Sequence[frozenset[bytes]]) -> Request:
        self._other_sizes.add(sectors)
        while len(self._sectors) < sectors:
            at = len(self._sectors)
            never = Request(0, at, [frozenset((ZEROES,))], 0, 0, acknowledged=True, durable=True)
            self._sectors.append([never])
            self._settled += ZEROES
        self._count += 1
        return self._add(self._count, first, contents)

    def end_resize(self, request: Request, sectors: int, *, acknowledged: bool) -> None:
        """Note the answer to a resize: if it succeeded, no power cut takes it back."""
        self.end(request, acknowledged=acknowledged, durable=True)
        if acknowledged:
            self.sectors, self._other_sizes, self._former_sizes = sectors, set(), set()
            self._forget()

    def opened(self, sectors: int) -> None:
        """Judge the size of the disk when it is opened: a resize without an answer may have happened.

        After a power cut it may be undone again, unless a flush was acknowledged since.

        Raises:
            HistoryError: It has another size.
        """
        if sectors not in {self.sectors, *self._other_sizes}:
            raise HistoryError(
                f"the disk has {sectors} sectors, not {self.sectors} or one of {self._other_sizes}"
            )
        self._former_sizes |= {self.sectors, *self._other_sizes}
        self.sectors, self._other_sizes = sectors, set()

    def _settle(self, sector: int, content: bytes) -> None:
        """Note that a sector has one content only, whatever happens to requests until now."""
        self._settled[sector * SECTOR : (sector + 1) * SECTOR] = content
        self._in_doubt.discard(sector)

    def _doubtful(self) -> Iterator[list[Request]]:
        """Yield the requests of each sector that may have more than one content, now or after a power cut."""
        return (self._sectors[sector] for sector in self._in_doubt)

    @property
    def time(self) -> int:
        """The time: it goes on when a request begins or ends."""
        return self._clock

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def begin_unmap(self, first: int, count: int) -> Request:
        """Note that sectors are unmapped, each of which becomes zeroes or stays as it is."""
        self._count += 1
        contents = [self.allowed(sector) | {ZEROES} for sector in range(first, first + count)]
        return self._add(self._count, first, contents)

    def begin(self, first: int, count: int, *, zeroes: bool = False) -> Request:
        """Note that a request is sent; a request of zeroes, or of contents that name it."""
        number = self._count = self._count + 1
        contents = [
            frozenset((ZEROES if zeroes else stamped(number, sector),))
            for sector in range(first, first + count)
        ]
        return self._add(number, first, contents)

    def begin_restore(self, contents: list[frozenset[bytes]]) -> Request:
        """Note that the disk is to become what `contents` has, such as a snapshot, and as large.

        Pass what is returned to `end_resize`.
        """
        cut_off = [frozenset((ZEROES,))] * (self.sectors - len(contents))
        return self._begin_resize(len(contents), 0, contents + cut_off)

    def begin_snapshot(self, name: str) -> None:
        """Note that a snapshot is asked for, with nothing else under way.

        Unless `took` or `refused` follows, one of that name that was there before may be there still.
        """
        self._taking = self.contents()
        self._taken = self.snapshots.get(name, self._taking)
        if len(self._taken) != len(self._taking):
            self.unknown.add(name)
            return
        self.snapshots[name] = [one | other for one, other in zip(self._taken, self._taking, strict=True)]

    def took(self, name: str) -> None:
        """Note that the snapshot that was begun last was acknowledged: there was none of its name before."""
        self.snapshots[name] = self._taking
        self.unknown.discard(name)

    def refused(self, name: str) -> None:
        """Note that the snapshot that was begun last was refused: there is one of its name."""
        self.snapshots[name] = self._taken

    def deleted(self, name: str) -> None:
        """Note that there is no snapshot of a name any more."""
        self.snapshots.pop(name, None)
        self.unknown.discard(name)

    def _add(self, number: int, first: int, contents: Sequence[frozenset[bytes]]) -> Request:
        request = Request(number, first, contents, self._tick())
        for sector in range(first, first + len(contents)):
            self._sectors[sector].append(request)
        self._in_doubt.update(range(first, first + len(contents)))
        self._open.append(request)
        return request

    def end(self, request: Request, *, acknowledged: bool, durable: bool = False) -> None:
        """Note the answer to a request."""
        request.ended = self._tick()
        request.acknowledged, request.durable = acknowledged, acknowledged and durable
        self._open.remove(request)

    def begin_read(self) -> int:
        """Note that a read is sent; pass what is returned to `end_read`."""
        self._reads.append(self._tick())
        return self._reads[-1]

    def end_read(self, began: int) -> None:
        """Note that a read was answered, and judged."""
        if began in self._reads:
            self._reads.remove(began)

    def begin_flush(self) -> int:
        """Note that a flush is sent; pass what is returned to `flushed`."""
        return self._tick()

    def flushed(self, began: int) -> None:
        """Note that a flush that began at some time was acknowledged."""
        for requests in self._doubtful():
            for request in requests:
                if request.acknowledged and not request.doubted and (request.ended or began) < began:
                    request.durable = True
        if self.untold is not None and self.untold < began:
            self.untold = None
        self._former_sizes = set()
        self._forget()

    def flush_of_others_failed(self) -> None:
        """Note that a flush has failed, and that it was no initiator's: the next flush has to tell of it."""
        self.untold = self._tick()

    def doubt(self, *, until: int | None = None) -> None:
        """Note that unflushed data may be lost, and that the initiator was told, or was promised nothing.

        Args:
            until: Only of requests that had ended at this time.
        """
        self.untold = None
        for requests in self._doubtful():
            for request in requests:
                if not request.durable and (until is None or (request.ended or until + 1) <= until):
                    request.doubted = True

    def doubt_since(self, before: int, losses: int) -> None:
        """Note that the initiator was told, if unflushed data was lost since there were `before` losses."""
        if losses > before:
            self.told = losses
            self.doubt()

    def lose_clusters(self, size: int) -> None:
        """Note that a process died between a sync that has failed and the first word about it.

        All sectors of a cluster that was not flushed as a whole may be as the medium had their place.

        Args:
            size: Sectors of a cluster.
        """
        unflushed = {
            sector // size
            for sector in self._in_doubt
            if not all(request.durable for request in self._sectors[sector])
        }
        for cluster in sorted(unflushed):
            for sector in range(cluster * size, min((cluster + 1) * size, len(self._sectors))):
                first = self._at_first[sector * SECTOR :][:SECTOR] or ZEROES
                written = (stamped(number, sector) for number in range(1, self._count + 1))
                lost = self._add(0, sector, [frozenset((ZEROES, first, *written))])
                self.end(lost, acknowledged=False)

    def stop(self) -> None:
        """Note that the process died: requests under way have ended without an answer."""
        self._reads.clear()
        for request in list(self._open):
            self.end(request, acknowledged=False)

    def cut_power(self) -> None:
        """Note that the power was cut: requests count only if they were durable."""
        self.stop()
        self.untold = None  # everybody knows
        self._other_sizes |= self._former_sizes
        self._former_sizes = set()
        for requests in self._doubtful():
            for request in requests:
                if not request.durable:
                    request.doubted = True

    def allowed(self, sector: int, *, began: int | None = None) -> frozenset[bytes]:
        """Return the contents that a sector may have, for a read that began at some time."""
        now = self._clock if began is None else began
        requests = self._sectors[sector]
        if len(requests) == 1:
            return requests[0].contents[sector - requests[0].first]
        newest = -1.0
        for each in requests:
            if each.acknowledged and not each.doubted and each.ended is not None and each.ended <= now:
                newest = max(newest, each.began)
        found = [
            each.contents[sector - each.first]
            for each in requests
            if each.ended is None or each.ended >= newest
        ]
        return found[0] if len(found) == 1 else frozenset().union(*found)

    def pin(self, first: int, content: bytes, *, began: int) -> None:
        """Note the data of a read: where nothing was under way since it began, every later read has the same.

        That holds after ``kill -9`` too, but not after a power cut.
        """
        for sector in self._in_doubt_between(first, first + len(content) // SECTOR):
            at = (sector - first) * SECTOR
            quiet = all(
                request.ended is not None and request.ended < began for request in self._sectors[sector]
            )
            if quiet and len(self.allowed(sector)) > 1:
                found = self._add(0, sector, [frozenset((content[at : at + SECTOR],))])
                self.end(found, acknowledged=True)

    def contents(self) -> list[frozenset[bytes]]:
        """Return the contents that each sector may have now."""
        return [self.allowed(sector) for sector in range(self.sectors)]

    def check(self, first: int, content: bytes, *, began: int | None = None, where: str = "the disk") -> None:
        """Judge data that was read from a sector on.

        Raises:
            HistoryError: A sector has a content that it must not have.
        """
        for sector in self._suspects(first, content):
            at = (sector - first) * SECTOR
            found, allowed = content[at : at + SECTOR], self.allowed(sector, began=began)
            if found not in allowed:
                raise HistoryError(
                    f"{where}: sector {sector} has {explain(found)}; "
                    f"allowed are {', '.join(sorted(map(explain, allowed)))}"
                )

    def _in_doubt_between(self, first: int, end: int) -> list[int]:
        """Return the sectors from `first` to before `end` that may have more than one content."""
        return sorted(sector for sector in self._in_doubt if first <= sector < end)

    def _suspects(self, first: int, content: bytes) -> Iterator[int]:
        """Yield the sectors that may have more than one content, or not their only one in some data."""
        at, end = first, first + len(content) // SECTOR
        for sector in (*self._in_doubt_between(first, end), end):
            settled = self._settled[at * SECTOR : sector * SECTOR]
            if content[(at - first) * SECTOR : (sector - first) * SECTOR] != settled:
                yield from range(at, sector)
            if sector < end:
                yield sector
            at = sector + 1

    def _forget(self) -> None:
        """Forget requests that no crash can bring back, and no read under way may return."""
        oldest = min(self._reads, default=self._clock)
        for sector in list(self._in_doubt):
            requests = self._sectors[sector]
            counting = (
                each.began for each in requests if each.durable and each.ended and each.ended <= oldest
            )
            newest = max(counting, default=-1)
            kept = [each for each in requests if each.ended is None or each.ended >= newest]
            self._sectors[sector] = kept
            contents = kept[0].contents[sector - kept[0].first]
            if len(kept) == len(contents) == 1 and kept[0].durable:
                self._settle(sector, *contents)
