"""A power cut leaves what POSIX promises, and no more."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sim.faults import Fault, OneFault
from tests.sim.world import World

SEEDS = range(60)


def left_after(root: Path, body: Callable[[], object], look: Callable[[], object]) -> set[object]:
    """Run a process and cut the power, many times; return what was found after it."""
    found = set()
    for seed in SEEDS:
        world = World(root, seed)
        world.storage.put({str(root / "file"): b"old" * 1000, str(root / "folder"): None})
        with world:
            assert world.live(body).error is None
            world.cut_power()
            found.add(look())
    return found


def write(path: Path, data: bytes, *, sync: bool = False) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwritev(fd, [data], 0)
    if sync:
        os.fsync(fd)
    os.close(fd)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def test_a_synced_write_stays(root: Path) -> None:
    file = root / "file"
    assert left_after(root, lambda: write(file, b"new" * 1000, sync=True), file.read_bytes) == {b"new" * 1000}


def test_an_unsynced_write_stays_sector_by_sector_or_not(root: Path) -> None:
    file = root / "file"
    found = left_after(root, lambda: write(file, b"new" * 1000), file.read_bytes)
    assert {b"old" * 1000, b"new" * 1000} < found
    for content in found:
        assert isinstance(content, bytes)
        for at in range(0, 3000, 512):
            assert content[at : at + 512] in ((b"old" * 1000)[at : at + 512], (b"new" * 1000)[at : at + 512])


def test_a_write_that_syncs_itself_stays(root: Path) -> None:
    def body() -> None:
        fd = os.open(root / "file", os.O_RDWR)
        os.pwritev(fd, [b"a" * 512], 0)
        os.pwritev(fd, [b"b" * 512], 0, os.RWF_DSYNC)
        os.close(fd)

    found = left_after(root, body, lambda: (root / "file").read_bytes()[:512])
    assert found == {b"b" * 512}


def test_a_name_stays_once_its_directory_is_synced(root: Path) -> None:
    new = root / "new"

    def synced() -> None:
        write(new, b"x", sync=True)
        sync_directory(root)

    assert left_after(root, lambda: write(new, b"x", sync=True), new.exists) == {False, True}
    assert left_after(root, synced, new.exists) == {True}


def test_a_rename_is_whole_or_not_there(root: Path) -> None:
    def body() -> None:
        write(root / "file.new", b"new", sync=True)
        sync_directory(root)
        (root / "file.new").replace(root / "file")

    def look() -> object:
        return (root / "file").read_bytes()[:3], (root / "file.new").exists()

    assert left_after(root, body, look) == {(b"old", True), (b"new", False)}


def test_a_file_that_is_renamed_before_it_is_synced_may_be_empty_or_zeroes(root: Path) -> None:
    def body() -> None:
        write(root / "file.new", b"new")
        (root / "file.new").replace(root / "file")
        sync_directory(root)

    found = left_after(root, body, (root / "file").read_bytes)
    assert found == {b"new", b"", bytes(3)}


def test_a_length_that_is_set_stays_or_not_as_a_whole(root: Path) -> None:
    file = root / "file"

    def body() -> None:
        fd = os.open(file, os.O_RDWR)
        os.ftruncate(fd, 512)
        os.ftruncate(fd, 6000)
        os.pwrite(fd, b"n" * 512, 5120)  # makes the file no longer, after a power cut neither
        os.close(fd)

    found = left_after(root, body, file.read_bytes)
    assert {len(content) for content in found if isinstance(content, bytes)} == {512, 3000, 6000}


def test_a_write_that_syncs_itself_has_its_length_on_the_medium(root: Path) -> None:
    def body() -> None:
        fd = os.open(root / "file", os.O_RDWR)
        os.ftruncate(fd, 6000)
        os.pwritev(fd, [b"n" * 512], 5120, os.RWF_DSYNC)
        os.close(fd)

    found = left_after(root, body, lambda: (root / "file").read_bytes()[5000:])
    assert found == {bytes(120) + b"n" * 512 + bytes(368)}


def test_a_failed_sync_loses_bytes_and_no_length(root: Path) -> None:
    file = root / "file"
    found = set()
    for seed in SEEDS:
        world = World(root, seed)
        world.storage.put({str(file): b"old"})
        with world:

            def body() -> None:
                fd = os.open(file, os.O_RDWR)
                os.pwritev(fd, [b"new"], 0)
                os.ftruncate(fd, 2)
                with pytest.raises(OSError, match="output error"):
                    os.fsync(fd)
                os.fsync(fd)
                os.close(fd)

            with world.faults(OneFault(Fault(3, "EIO"))):
                assert world.live(body).error is None
            assert file.stat().st_size == 2
            world.cut_power()
            found.add(file.read_bytes())
    assert found == {b"ol"}


def test_volatile_files_are_gone_after_a_power_cut_only(root: Path) -> None:
    note = root / "run" / "note"
    world = World(root, 1)
    world.storage.put({})
    with world:
        world.live(lambda: write(note, b"x", sync=True))
        assert note.exists()
        world.cut_power()
        assert not note.exists()


def test_pages_of_a_failed_sync_are_never_written(root: Path) -> None:
    file = root / "file"
    found = set()
    for seed in SEEDS:
        world = World(root, seed)
        world.storage.put({str(file): b"old"})
        with world:

            def body() -> None:
                fd = os.open(file, os.O_RDWR)
                os.pwritev(fd, [b"new"], 0)
                with pytest.raises(OSError, match="output error"):
                    os.fsync(fd)
                os.fsync(fd)
                os.close(fd)

            with world.faults(OneFault(Fault(2, "EIO"))):
                assert world.live(body).error is None
            found.add(("before", file.read_bytes()))
            assert world.storage.losses == 1
            world.cut_power()
            found.add(("after", file.read_bytes()))
    assert found == {("before", b"old"), ("before", b"new"), ("after", b"old")}


def test_a_change_that_is_not_simulated_is_noticed(root: Path) -> None:
    (root / "file").write_bytes(b"old")
    with World(root, 1) as world:
        with world.untouched():
            (root / "file").write_bytes(b"new")
        with pytest.raises(AssertionError, match="missed a change"):
            world.cut_power()


@pytest.mark.parametrize(("length", "unit"), [(8 * 512, 512), (20, 8)])
def test_a_short_write_to_memory_tears_no_whole_sector(root: Path, length: int, unit: int) -> None:
    counts = set()
    for seed in SEEDS:
        world = World(root, seed)
        world.storage.put({})

        def body(world: World = world) -> None:
            fd = os.open(world.run / "note", os.O_RDWR | os.O_CREAT)
            world.calls.plan = OneFault(Fault(world.calls.count, "short"))
            counts.add(os.pwrite(fd, bytes(length), 0))
            os.close(fd)

        with world:
            assert world.live(body).error is None
    assert len(counts) > 1
    assert all(count % unit == 0 for count in counts)
