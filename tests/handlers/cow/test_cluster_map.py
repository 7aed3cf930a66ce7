"""The map of an overlay in memory: states, and the sectors that they change."""

import pytest

from vscsihba.errors import HostError
from vscsihba.handlers.cow.cluster_map import ClusterMap
from vscsihba.handlers.cow.format import BASE, DATA, ZERO, Header, place_of_sector
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.shared import sectors
from vscsihba.handlers.shared.sectors import PER_SECTOR


def test_a_state_changes_the_sectors_that_have_it() -> None:
    clusters = ClusterMap()
    clusters.clear(3 * PER_SECTOR)
    assert clusters.dirty == {0, 1, 2}
    for first, last, expected in (
        (0, 1, {0}),
        (PER_SECTOR - 1, PER_SECTOR, {0}),
        (PER_SECTOR - 1, PER_SECTOR + 1, {0, 1}),
        (PER_SECTOR, 2 * PER_SECTOR - 1, {1}),
        (PER_SECTOR, 2 * PER_SECTOR, {1}),
        (10, 3 * PER_SECTOR, {0, 1, 2}),
    ):
        clusters.dirty.clear()
        clusters.set(first, last, DATA)
        assert clusters.dirty == expected
    assert clusters.is_all(DATA, 10, 3 * PER_SECTOR)
    assert not clusters.is_all(DATA, 9, 11)
    assert bytes(clusters.states[:11]) == bytes([DATA, *[BASE] * 9, DATA])
    clusters.clear(PER_SECTOR + 1)
    assert clusters.states == bytes(PER_SECTOR + 1)


@pytest.mark.parametrize("lost", [False, True])
def test_noted_states_are_taken_over_as_far_as_they_count(lost: bool) -> None:
    clusters = ClusterMap()
    clusters.clear(3 * PER_SECTOR)
    clusters.set(2, 4, DATA)
    clusters.dirty.clear()
    noted = bytearray(3 * PER_SECTOR + 1)
    noted[1:6] = bytes([DATA + 1, DATA + 1, 0, ZERO + 1, BASE + 1])
    noted[2 * PER_SECTOR] = DATA + 1
    noted[-1] = DATA + 1  # of a disk that was larger
    stored = BASE if lost else DATA
    fresh = clusters.take_over(bytes(noted), lost=lost)
    assert fresh == (set() if lost else {1, 2 * PER_SECTOR})
    assert clusters.states[:6] == bytes([BASE, stored, DATA, DATA, ZERO, BASE])
    assert clusters.states[2 * PER_SECTOR] == stored
    assert len(clusters.states) == 3 * PER_SECTOR
    assert clusters.dirty == {0, 2}


def header(clusters: int) -> Header:
    return Header(size=clusters * 4096, cluster_size=4096, base="", base_size=0, base_digest="")


def test_what_was_stored_is_loaded_and_damage_is_found() -> None:
    shape = header(PER_SECTOR + 3)
    store = MemoryHandler(MemoryHandler.Options(size=1 << 20, label="map"))
    store.open()
    clusters = ClusterMap()
    clusters.clear(shape.clusters)
    clusters.set(5, 7, DATA)
    clusters.set(PER_SECTOR, PER_SECTOR + 3, ZERO)
    for number in (0, 1):
        place = place_of_sector(number, 4096)
        store.write(place, [memoryview(clusters.sector(number, shape.map_name))])
    found = ClusterMap()
    found.load(store, shape)
    assert found.states == clusters.states
    assert len(found.states) == shape.clusters
    assert found.dirty == set()
    store.write(place_of_sector(1, 4096), [memoryview(sectors.encode(1, bytes([3]), shape.map_name))])
    with pytest.raises(HostError, match="damaged in map sector 1"):
        ClusterMap().load(store, shape)
    store.write(place_of_sector(1, 4096), [memoryview(bytes(512))])
    with pytest.raises(HostError, match="damaged in map sector 1"):
        ClusterMap().load(store, shape)
    store.close()
