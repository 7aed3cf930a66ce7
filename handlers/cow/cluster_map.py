"""The map of an overlay in memory: a state for each cluster, and the sectors that are not stored yet.

It reads the sectors of the map and makes their bytes; `overlay` decides when they are written. It knows no
contents of clusters.
"""

from collections.abc import Iterator

from vscsihba.block import Extent
from vscsihba.errors import HostError
from vscsihba.handlers.cow.format import (
    BASE,
    DATA,
    LOST,
    PER_GROUP,
    SECTORS_PER_GROUP,
    ZERO,
    Header,
    place_of_sector,
)
from vscsihba.handlers.shared import sectors
from vscsihba.handlers.shared.sectors import PER_SECTOR
from vscsihba.handlers.shared.vectored import Readable, read_bytes

_LONGEST_LOOK = 1 << 20
"""Clusters that are looked at before another thread can have its turn."""


class ClusterMap:
    """The states of the clusters of an overlay.

    Attributes:
        states: `BASE`, `DATA` or `ZERO` for each cluster; `LOST` after a flush that has failed.
        dirty: Numbers of the sectors that are to be stored.
    """

    def __init__(self) -> None:
        self.states = bytearray()
        self.dirty: set[int] = set()

    def load(self, store: Readable, header: Header) -> None:
        """Read the states of an overlay.

        Raises:
            HostError: A sector is damaged.
            OSError: As the store's.
        """
        for group in range(-(-header.clusters // PER_GROUP)):
            first = group * SECTORS_PER_GROUP
            count = min(SECTORS_PER_GROUP, -(-header.clusters // PER_SECTOR) - first)
            block = read_bytes(store, place_of_sector(first, header.cluster_size), count * sectors.SECTOR)
            for number in range(count):
                self.states += _decode(
                    first + number, block[number * sectors.SECTOR :][: sectors.SECTOR], header.map_name
                )
        del self.states[header.clusters :]

    def clear(self, clusters: int) -> None:
        """Make every state `BASE`."""
        self.states = bytearray(clusters)
        self.dirty.update(range(-(-clusters // PER_SECTOR)))

    def take_over(self, noted: bytes, *, lost: bool) -> set[int]:
        """Take over the states that a killed process had not flushed.

        Args:
            noted: For each cluster its state plus one, 0 if this map has it.
            lost: A flush of that process has failed, so clusters that were stored since the one before it are
                as this map has them.

        Returns:
            The clusters that were stored since the last flush.
        """
        fresh = set[int]()
        noted = noted[: len(self.states)]
        for start in range(0, len(noted), PER_SECTOR):
            part = noted[start : start + PER_SECTOR]
            if any(part):
                for at, state in enumerate(part, start):
                    if state - 1 == DATA != self.states[at]:
                        if lost:
                            continue
                        fresh.add(at)
                    if state:
                        self.states[at] = state - 1
                self.dirty.add(start // PER_SECTOR)
        return fresh

    def set(self, first: int, last: int, state: int) -> None:
        """Set the state of the clusters from `first` to before `last`."""
        self.states[first:last] = bytes([state]) * (last - first)
        self.dirty.update(range(first // PER_SECTOR, (last - 1) // PER_SECTOR + 1))

    def sector(self, number: int, name: str) -> bytes:
        """Return the bytes of a sector of the map that has this name."""
        return sectors.encode(number, self.states[number * PER_SECTOR : (number + 1) * PER_SECTOR], name)

    def is_all(self, state: int, first: int, last: int) -> bool:
        """Return whether every cluster from `first` to before `last` has `state`."""
        return self.states.count(state, first, last) == last - first

    def runs(self, offset: int, length: int, size: int, *, lost: bool) -> Iterator[tuple[int, Extent]]:
        """Cut a range of the disk where the state changes; return each state with its part.

        Args:
            offset: First byte.
            length: Bytes.
            size: Bytes of a cluster.
            lost: There may be clusters whose state is `LOST`.
        """
        end = offset + length
        while offset < end:
            first = offset // size
            state = self.states[first]
            stop = min(self.end_of_run(state, first, -(-end // size), lost=lost) * size, end)
            yield state, Extent(offset, stop - offset)
            offset = stop

    def end_of_run(self, state: int, first: int, last: int, *, lost: bool) -> int:
        """Return the first cluster after `first` that has not `state`, `last` if there is none before.

        The work is proportional to the run, even where one of the other states is nowhere.

        Args:
            state: That of `first`, as the caller has read it: another thread may change it at any time.
            first: Number of a cluster.
            last: Likewise, greater than `first`.
            lost: There may be clusters whose state is `LOST`.
        """
        states, at, window = self.states, first + 1, 64
        if at == last or states[at] != state:
            return at
        others = [other for other in (BASE, DATA, ZERO, *([LOST] if lost else [])) if other != state]
        while at < last:
            stop = border = min(last, at + window)
            for other in others:
                found = states.find(other, at, border)
                border = border if found < 0 else found
            if border < stop:
                return border
            at, window = stop, min(4 * window, _LONGEST_LOOK)
        return last


def _decode(number: int, sector: bytes, name: str) -> bytes:
    states = sectors.decode(number, sector, name)
    if states is None or max(states) > ZERO:
        raise HostError(f"the overlay is damaged in map sector {number}", cure="restore it from a copy")
    return states
