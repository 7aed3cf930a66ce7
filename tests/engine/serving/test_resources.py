"""Resources: no descriptors, threads or maps are left after many openings of a unit."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.rig import GOOD, Rig
from vscsihba.loopback import Loopback


def held() -> tuple[int, int, int]:
    """Return how many descriptors, threads and maps this process has."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("\n")
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), maps


def live(path: Path, journal: Path) -> None:
    with Rig(str(path), loopback=Loopback(blocks=64, journal=journal)) as rig:
        assert rig.write(0, b"x" * 512, flags=0x08).status == GOOD  # by a thread
        assert rig.read(0, 1).status == GOOD
    for thread in threading.enumerate():
        if thread.name.startswith("lun"):
            thread.join(10)


def resident() -> int:
    """Return the resident memory of this process in KiB."""
    gc.collect()
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])


@pytest.fixture
def lives(tmp_path: Path) -> Callable[[int], None]:
    """Open and close a unit on one image that often."""
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))

    def lead(count: int) -> None:
        for _ in range(count):
            live(image, tmp_path / "journal")

    return lead


def test_two_hundred_lives_leave_nothing(lives: Callable[[int], None]) -> None:
    lives(5)
    before = held()
    lives(200)
    descriptors, threads, maps = held()
    assert (descriptors, threads) == before[:2]
    assert maps <= before[2] + 10, "the allocator may keep some"


def test_memory_does_not_grow_with_every_life(lives: Callable[[int], None]) -> None:
    """After some time the interpreter and malloc keep no more memory for themselves."""
    lives(150)
    before = resident()
    lives(300)
    assert resident() - before < 1024, "no more than 3 KiB a life, once all caches are full"
