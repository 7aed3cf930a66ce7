import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.handlers.crash import Promises, Step, cut_power, kill, steps
from tests.handlers.places import MEMORY_DIRECTORY
from vscsihba.block import Views
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.cow.disk import CowDisk
from vscsihba.handlers.cow.format import place_of
from vscsihba.handlers.cow.handler import CowHandler
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.cow.overlay_file import open_overlay
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

SIZE = 320 * KIB
CONTENT = bytes(range(1, 201)) * (SIZE // 200 + 1)


def cow(directory: Path, **options: object) -> dict[str, object]:
    return {
        "handler": "cow",
        "path": str(directory / "over.cow"),
        "create": True,
        **options,
        "next": str(directory / "base.img"),
    }


def handler_of(disk: Checked) -> CowHandler:
    below: Handler = disk
    while isinstance(below, Checked):
        below = below.next
    assert isinstance(below, CowHandler)
    return below


class CowModel(DiskModel):
    scratch = MEMORY_DIRECTORY
    options: dict[str, object] = {}  # noqa: RUF012  # never changed

    def prepare(self, directory: Path) -> bytearray:
        (directory / "base.img").write_bytes(CONTENT[: self.size])
        return bytearray(CONTENT[: self.size])

    def document(self, directory: Path) -> Document:
        return cow(directory, **self.options)

    def teardown(self) -> None:
        assert (self.directory / "base.img").read_bytes() == CONTENT[: self.size]
        super().teardown()


class SmallClustersModel(CowModel):
    options = {"cluster_size": 4096}  # noqa: RUF012


class OddSizeModel(CowModel):
    """The last cluster is cut short, by the base and by the disk."""

    size = 300 * KIB + 512


TestCow = as_tests(CowModel)
TestCowSmallClusters = as_tests(SmallClustersModel)
TestCowOddSize = as_tests(OddSizeModel)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    return tmp_path


# Requests for one cluster


CHANGES: dict[str, Callable[[Checked], None]] = {
    "write": lambda disk: write(disk, 8192, b"A" * 512),
    "write_zeroes": lambda disk: disk.write_zeroes(8192, 512, may_unmap=False),
    "enlarge": lambda disk: disk.resize(SIZE),
    "write beside it": lambda disk: write(disk, 8704, b"B" * 512),
    "unmap": lambda disk: disk.unmap(8192, 4096),
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("write", "write beside it"),
        ("write_zeroes", "write beside it"),
        ("enlarge", "write beside it"),
        ("write", "unmap"),
    ],
)
def test_bringing_a_cluster_from_below_undoes_no_other_request(
    base: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """A neighbour that is stored between the reading and the writing would get its old bytes back."""
    read_below, done = CowDisk._read_below, Event()

    def change() -> None:
        CHANGES[second](disk)
        done.set()

    with build(cow(base, cluster_size=4096)) as disk:
        if first == "enlarge":
            disk.resize(9216)
        beside = Thread(target=change)

        def slow_read(cow_disk: CowDisk, offset: int, views: Views) -> None:
            read_below(cow_disk, offset, views)
            if not beside.ident:
                beside.start()
                done.wait(0.2)  # it has to wait for us; were it let in, it would be done long before

        monkeypatch.setattr(CowDisk, "_read_below", slow_read)
        CHANGES[first](disk)
        beside.join()
        assert read(disk, 8704, 512) == (bytes(512) if second == "unmap" else b"B" * 512)


def test_merging_a_cluster_undoes_no_write_to_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, done = Overlay.read, Event()

    def change() -> None:
        write(disk, 0, b"new!" * 1024)
        done.set()

    with build({**cow(base, cluster_size=4096), "path": str(base / "below.cow")}) as lower:
        write(lower, 0, b"old!" * 2048)
    below = open_overlay(str(base / "below.cow"), read_only=True)
    with build(cow(base, cluster_size=4096)) as disk:
        beside = Thread(target=change)

        def slow_read(overlay: Overlay, offset: int, views: Views) -> None:
            load(overlay, offset, views)
            if overlay is below and not beside.ident:
                beside.start()
                done.wait(0.2)

        monkeypatch.setattr(Overlay, "read", slow_read)
        handler_of(disk)._disk.pull(below, 0)
        beside.join()
        handler_of(disk)._disk.pull(below, 1)
        assert read(disk, 0, 8192) == b"new!" * 1024 + b"old!" * 1024
    below.close()


# Base and overlay


def test_many_disks_share_a_base(base: Path) -> None:
    with build(cow(base)) as one, build({**cow(base), "path": str(base / "other.cow")}) as other:
        write(one, 1000, b"one")
        write(other, 1000, b"other")
        assert read(one, 1000, 5) == b"one" + CONTENT[1003:1005]
        assert read(other, 1000, 5) == b"other"
        assert one.identity != other.identity


def test_identity_stays(base: Path) -> None:
    with build(cow(base)) as disk:
        identity = disk.identity
    (base / "over.cow").rename(base / "moved.cow")
    with build({**cow(base), "path": str(base / "moved.cow")}) as disk:
        assert disk.identity == identity


def test_takes_room_for_what_changed_only(base: Path) -> None:
    with (base / "base.img").open("r+b") as file:
        file.truncate(1 << 30)
    with build(cow(base)) as disk:
        write(disk, 512 << 20, b"x")
        disk.flush()
        assert (base / "over.cow").stat().st_blocks * 512 < 300 * KIB
        disk.unmap(0, 1 << 30)
        disk.flush()
        assert (base / "over.cow").stat().st_blocks * 512 < 100 * KIB


def test_extents_tell_overlay_base_and_holes(base: Path) -> None:
    with build(cow(base, size="1MiB")) as disk:
        write(disk, 64 * KIB, b"x")
        disk.unmap(128 * KIB, 64 * KIB)
        found = disk.extents(0, 1 << 20)
        assert [(status.extent.offset // KIB, status.allocated, status.zero) for status in found] == [
            (0, True, False),
            (64, True, False),
            (128, False, True),
            (192, True, False),
            (320, False, True),
        ]


@pytest.mark.parametrize("cluster_size", [4096, 65536, 1 << 20])
def test_commands_may_be_longer_than_a_cluster(base: Path, cluster_size: int) -> None:
    with build(cow(base, cluster_size=cluster_size)) as disk:
        assert disk.geometry.optimal_io == 1 << 20


def test_larger_than_the_base(base: Path) -> None:
    with build(cow(base, size="1MiB")) as disk:
        assert disk.geometry.size == 1 << 20
        assert read(disk, SIZE - 100, 200) == CONTENT[SIZE - 100 : SIZE] + bytes(100)
        write(disk, SIZE + 5, b"behind")
    with build(cow(base)) as disk:
        assert read(disk, SIZE, 20) == bytes(5) + b"behind" + bytes(9)


def test_smaller_than_the_base_is_refused(base: Path) -> None:
    with pytest.raises(UsageError, match="hides some of"):
        build(cow(base, size="64KiB")).open()


@pytest.mark.parametrize("change", ["content", "size", "name"])
def test_another_base_is_noticed(base: Path, change: str) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    image = base / "base.img"
    if change == "content":
        image.write_bytes(b"\xff" * SIZE)
    elif change == "size":
        os.truncate(image, SIZE - 512)
    else:
        image = image.rename(base / "other.img")
    document = {**cow(base), "next": str(image)}
    with pytest.raises(HostError, match=r"over\.cow: its base (has changed|is not)"):
        build(document).open()
    with build({**document, "rebase": True}) as disk:
        assert read(disk, 0, 4) == b"mine"
    with build(document):
        pass


def test_missing_overlay_is_only_made_if_asked(base: Path) -> None:
    with pytest.raises(UsageError, match="no such overlay"):
        build(cow(base, create=False)).check()
    assert not (base / "over.cow").exists()


def test_making_one_that_fails_leaves_nothing(base: Path) -> None:
    long_named = {"handler": "null", "size": 512, "label": "x" * 4000}
    with pytest.raises(HostError, match="header of the overlay is too long"):
        build({**cow(base), "next": long_named}).open()
    assert sorted(path.name for path in base.iterdir()) == ["base.img"]


@pytest.mark.parametrize(
    "options", [{"read_only": True}, {"create": False, "size": "1MiB"}, {"cluster_size": 5000}]
)
def test_options_that_cannot_be_meant(base: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cow(base, **options))


# Sharing


def test_one_writer_or_many_readers(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"kept")
        with pytest.raises(InUseError):
            build(cow(base)).open()
    reader = cow(base, create=False, read_only=True)
    with build(reader) as one, build(reader) as other:
        assert read(one, 0, 4) == read(other, 0, 4) == b"kept"
        with pytest.raises(OSError, match="Read-only"):
            write(one, 0, b"x")


# Inline


def test_inline_goes_where_the_data_is(base: Path) -> None:
    with build(cow(base)) as disk:
        inline = disk.inline
        assert inline.write is not None
        assert inline.read is not None
        write(disk, 0, b"x" * 64 * KIB)
        assert inline.write([memoryview(b"new")], 5, 0) == 3
        room = bytearray(8)
        assert inline.read([memoryview(room)], 4, inline.read_flags) == 8
        assert room == b"xnewxxxx"
        read(disk, 128 * KIB, 8)
        assert inline.read([memoryview(room)], 128 * KIB, inline.read_flags) == 8
        assert room == CONTENT[128 * KIB : 128 * KIB + 8]
        disk.unmap(64 * KIB, SIZE - 64 * KIB)
        assert inline.read([memoryview(room)], 64 * KIB - 4, inline.read_flags) == 8
        assert room == b"xxxx" + bytes(4)
        assert inline.read([memoryview(room)], SIZE - 8, inline.read_flags) == 8
        assert room == bytes(8)


# Damage


@pytest.fixture
def overlay(base: Path) -> Path:
    with build(cow(base)) as disk:
        write(disk, 0, b"mine")
    return base / "over.cow"


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("at", [8192, 8192 + 4, 8192 + 8, 8192 + 100, 8192 + 511])
def test_a_flipped_bit_in_the_map_is_noticed(base: Path, overlay: Path, at: int) -> None:
    flip(overlay, at)
    with pytest.raises(HostError, match=r"over\.cow: the overlay is damaged in map sector 0"):
        build(cow(base)).open()


def test_a_lost_map_sector_is_noticed(base: Path, overlay: Path) -> None:
    with overlay.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(512))
    with pytest.raises(HostError, match="damaged in map sector 0"):
        build(cow(base)).open()


def test_one_damaged_header_is_no_harm(base: Path, overlay: Path) -> None:
    for at in (0, 4096):
        intact = overlay.read_bytes()
        flip(overlay, at + 30)
        with build(cow(base)) as disk:
            assert read(disk, 0, 4) == b"mine"
        overlay.write_bytes(intact)


def test_two_damaged_headers(base: Path, overlay: Path) -> None:
    flip(overlay, 30)
    flip(overlay, 4096 + 30)
    with pytest.raises(HostError, match="damaged in both headers"):
        build(cow(base)).open()


def test_another_file_is_no_overlay(base: Path, overlay: Path) -> None:
    overlay.write_bytes(os.urandom(SIZE))
    with pytest.raises(HostError, match="no overlay found"):
        build(cow(base)).open()
    overlay.write_bytes(bytes(512))
    with pytest.raises(HostError, match="no overlay found"):
        build(cow(base)).open()


def test_a_newer_version_is_told(base: Path, overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscsihba.handlers.cow.format.VERSION", 1)
    monkeypatch.setattr("vscsihba.handlers.cow.format._KNOWN", (1,))
    with pytest.raises(HostError, match="of version 2, known is 1"):
        build(cow(base)).open()


def test_a_file_cut_short(base: Path, overlay: Path) -> None:
    os.truncate(overlay, place_of(65536, 65536))
    with pytest.raises(HostError, match="cut short"):
        build(cow(base)).open()


# Crashes

FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
SECTORS = SIZE // 512


@FEW
@given(todo=steps(SECTORS), lasts=st.integers(0, 60), seed=st.integers(0, 1 << 32), small=st.booleans())
def test_power_cut_leaves_what_flushes_promised(todo: list[Step], lasts: int, seed: int, small: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY_DIRECTORY) as name:
        (Path(name) / "base.img").write_bytes(CONTENT[:SIZE])
        document = cow(Path(name), cluster_size=4096 if small else 65536)
        cut_power(
            Path(name), document, Promises(CONTENT[:SIZE], unmap_zeroes=False), todo, lasts=lasts, seed=seed
        )


SCRIPT = [
    Step("write", 0, 3, 1),
    Step("write", 200, 300, 2),
    Step("flush"),
    Step("write_fua", 130, 10, 3),
    Step("unmap", 100, 400),
    Step("write", 1, 1, 4),
    Step("write_zeroes", 0, 200, 5),
    Step("flush"),
    Step("write", 639, 1, 6),
    Step("write", 250, 5, 7),
]


def test_kill_at_every_call_loses_nothing_that_was_acknowledged(base: Path, tmp_path: Path) -> None:
    at, came_so_far = 0, True
    while came_so_far:
        where = tmp_path / str(at)
        where.mkdir()
        shutil.copy(base / "base.img", where)
        came_so_far = kill(cow, where, Promises(CONTENT[:SIZE], unmap_zeroes=False), SCRIPT, at)
        at += 1
    assert at > 20


def notes(directory: Path) -> list[Path]:
    """Return the notes left for other processes; claims are not counted, since they need no removal."""
    return [path for path in directory.iterdir() if not path.name.startswith("claim.")]


def abandon(disk: Checked) -> None:
    """Leave an overlay as a process does that is killed."""
    handler = disk.next
    assert isinstance(handler, CowHandler)
    handler._overlay._leave_note()
    handler._overlay.store.close()
    handler._name.__exit__()


def test_readers_see_what_a_killed_process_had_not_flushed(base: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"acknowledged")
    abandon(disk)
    for _ in range(2):
        with build(cow(base, create=False, read_only=True)) as reader:
            assert read(reader, 0, 12) == b"acknowledged"
    with build(cow(base)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


def test_an_overlay_is_not_used_before_its_name_is_on_stable_storage(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that made it may have been killed before."""
    with build(cow(base)) as disk:
        path = Path(handler_of(disk).options.path)
    synced: list[Path] = []

    def note(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())

    monkeypatch.setattr(os, "fsync", note)
    with build(cow(base), make=False):
        assert path.parent not in synced
    with build(cow(base)):
        assert synced[0] == path.parent


def test_what_a_killed_process_left_is_used_once(base: Path, own_tmpfs_directory: Path) -> None:
    disk = build(cow(base)).open()
    write(disk, 0, b"acknowledged")
    abandon(disk)
    assert len(notes(own_tmpfs_directory)) == 1
    with build(cow(base)) as disk:
        disk.unmap(0, SIZE)
    assert notes(own_tmpfs_directory) == []
    with build(cow(base)) as disk:
        assert not any(read(disk, 0, SIZE))
