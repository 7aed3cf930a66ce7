import errno
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.handlers.crash import Promises, Step, cut_power, kill, steps
from tests.handlers.places import MEMORY_DIRECTORY
from vscsihba.block import Views
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError
from vscsihba.handlers.cache import traffic as cache_traffic
from vscsihba.handlers.cache.handler import CacheHandler
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

SIZE = 320 * KIB
CONTENT = bytes(range(1, 201)) * (SIZE // 200 + 1)


def cache(directory: Path, **options: object) -> dict[str, object]:
    return {"handler": "cache", "size": "64KiB", **options, "next": str(directory / "disk.img")}


def back(directory: Path, **options: object) -> dict[str, object]:
    return cache(directory, **{"mode": "write-back", **options})


class ThroughModel(DiskModel):
    scratch = MEMORY_DIRECTORY
    options: dict[str, object] = {}  # noqa: RUF012  # never changed

    def prepare(self, directory: Path) -> bytearray:
        (directory / "disk.img").write_bytes(CONTENT[: self.size])
        return bytearray(CONTENT[: self.size])

    def document(self, directory: Path) -> Document:
        return cache(directory, **self.options)


class BackModel(ThroughModel):
    options = {"mode": "write-back"}  # noqa: RUF012


class BackLargeBlocksModel(ThroughModel):
    options = {"mode": "write-back", "block_size": 32768}  # noqa: RUF012


class BackEverythingFitsModel(ThroughModel):
    size = 300 * KIB + 512
    options = {"mode": "write-back", "size": "8MiB"}  # noqa: RUF012


TestWriteThrough = as_tests(ThroughModel)
TestWriteBack = as_tests(BackModel)
TestWriteBackLargeBlocks = as_tests(BackLargeBlocksModel)
TestWriteBackEverythingFits = as_tests(BackEverythingFitsModel)


class Below(MemoryHandler):
    """A layer that tells what it is asked, and can be made to wait or to fail."""

    def __init__(self) -> None:
        super().__init__(MemoryHandler.Options(size=1 << 20, label="below"))
        self.asked: list[tuple[Any, ...]] = []
        self.fails = False
        self.before_read: Callable[[], None] = lambda: None
        self.workers = 8
        self.never_blocks = False
        self.open()

    def read(self, offset: int, views: Views) -> None:
        super().read(offset, views)
        self.asked.append(("read", offset, sum(map(len, views))))
        self.before_read()

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        if self.fails:
            raise OSError(5, "broken")
        self.asked.append(("write", offset, sum(map(len, views)), *(["fua"] if fua else [])))
        super().write(offset, views)

    def flush(self) -> None:
        self.asked.append(("flush",))


@pytest.fixture
def below() -> Below:
    return Below()


def on(below: Below, **options: Any) -> CacheHandler:
    return CacheHandler(CacheHandler.Options(**{"size": 64 * KIB, **options}), below)


@pytest.fixture
def through(below: Below) -> Iterator[Checked]:
    yield from opened(on(below))


@pytest.fixture
def behind(below: Below) -> Iterator[Checked]:
    yield from opened(on(below, mode="write-back"))


def opened(handler: CacheHandler) -> Iterator[Checked]:
    handler.open()
    disk = Checked(handler)
    disk.open()
    yield disk
    handler.close()


# What is asked of the layer below


def test_what_was_read_is_read_once(through: Checked, below: Below) -> None:
    read(through, 100, 10)
    read(through, 0, 4096)
    read(through, 0, 12288)
    assert below.asked == [("read", 0, 4096), ("read", 4096, 8192)]


def test_blocks_that_were_fetched_at_once_are_held_each(through: Checked, below: Below) -> None:
    MemoryHandler.write(below, 0, [memoryview(CONTENT)[:SIZE]])
    for start in (0, 20480):
        read(through, start, 16384)
        below.asked.clear()
        assert read(through, start, 16384) == CONTENT[start : start + 16384]
        assert below.asked == []


def test_what_is_not_used_longest_goes_first(through: Checked, below: Below) -> None:
    """Of 16 blocks, which are in lines of 4."""
    for block in (*range(16), 0, 16):
        read(through, block * 4096, 1)
    below.asked.clear()
    for block in (0, 16, 8, 4):
        read(through, block * 4096, 1)
    assert [offset // 4096 for _, offset, _ in below.asked] == [4]


def test_write_through_is_written_below_at_once(through: Checked, below: Below) -> None:
    read(through, 0, 4096)
    write(through, 1, b"new", fua=True)
    assert below.asked[1:] == [("write", 1, 3, "fua")]
    assert read(through, 0, 5) == b"\0new\0"


def test_write_back_waits_for_a_flush(behind: Checked, below: Below) -> None:
    write(behind, 0, b"x" * 8192)
    write(behind, 3, b"yz")
    write(behind, 20480, b"z" * 4096)
    assert below.asked == []
    behind.flush()
    assert below.asked == [("write", 0, 8192), ("write", 20480, 4096), ("flush",)]
    below.asked.clear()
    behind.flush()
    assert below.asked == [("flush",)]
    assert read(behind, 0, 6) == b"xxxyzx"


def test_a_cache_that_writes_back_has_to_be_flushed(tmp_path: Path, below: Below) -> None:
    (tmp_path / "disk.img").write_bytes(CONTENT[:SIZE])
    below.flush = None  # type: ignore[assignment, method-assign]
    flushless = replace(below.capabilities, flush=False)
    with mock.patch.object(Below, "capabilities", flushless):
        assert on(below, mode="write-back").capabilities.flush
        assert not on(below).capabilities.flush
    with mock.patch.object(Below, "capabilities", replace(flushless, read_only=True)):
        assert not on(below, mode="write-back").capabilities.flush


def test_the_files_are_named_by_the_format(behind: Checked, below: Below, own_tmpfs_directory: Path) -> None:
    key = hashlib.sha256(b"0 memory:below").hexdigest()[:32]
    names = [path.name.partition(".")[2] for path in own_tmpfs_directory.glob("*.cache-*")]
    assert sorted(names) == [f"cache-{key}.data", f"cache-{key}.dirty"]


def test_blocks_that_go_below_one_by_one_make_no_write_whole_or_nothing(below: Below) -> None:
    assert below.capabilities.atomic_write
    assert not on(below, mode="write-back").capabilities.atomic_write


def test_fua_goes_below_alone(behind: Checked, below: Below) -> None:
    write(behind, 0, b"x" * 4096)
    write(behind, 8192, b"y" * 4096, fua=True)
    assert below.asked == [("write", 8192, 4096, "fua")]


def test_fua_that_does_not_fit_is_flushed(behind: Checked, below: Below) -> None:
    write(behind, 0, b"x" * 80 * KIB, fua=True)
    assert below.asked[-1] == ("flush",)


def test_a_part_of_a_block_is_fetched_around(behind: Checked, below: Below) -> None:
    below.write(0, [memoryview(b"a" * 4096)])
    below.asked.clear()
    write(behind, 10, b"new")
    assert below.asked == [("read", 0, 4096)]
    assert read(behind, 8, 7) == b"aanewaa"


def test_dirty_blocks_make_room(behind: Checked, below: Below) -> None:
    for block in range(40):
        write(behind, block * 4096, bytes([block + 1]) * 4096)
    assert sum(length for verb, _, length in below.asked if verb == "write") >= 24 * 4096
    assert read(behind, 0, 40 * 4096) == b"".join(bytes([block + 1]) * 4096 for block in range(40))


def test_what_did_not_get_below_is_kept(behind: Checked, below: Below) -> None:
    write(behind, 0, b"kept")
    below.fails = True
    with pytest.raises(OSError, match="broken"):
        behind.flush()
    assert read(behind, 0, 4) == b"kept"
    below.fails = False
    behind.flush()
    room = bytearray(4)
    MemoryHandler.read(below, 0, [memoryview(room)])
    assert room == b"kept"


def test_unmapped_blocks_are_not_written_back(behind: Checked, below: Below) -> None:
    write(behind, 0, b"x" * 16384)
    behind.unmap(2048, 12288)
    behind.flush()
    assert [entry for entry in below.asked if entry[0] == "write"] == [
        ("write", 0, 4096),
        ("write", 12288, 4096),
    ]
    assert read(behind, 0, 16384) == b"x" * 2048 + bytes(12288) + b"x" * 2048


@pytest.mark.parametrize(("start", "end"), [(100, 200), (4000, 4200), (0, 4096), (100, 8292), (4096, 20000)])
def test_zeroes_of_any_range_are_zeroes_and_the_rest_stays(
    behind: Checked, below: Below, start: int, end: int
) -> None:
    expected = bytearray(b"x" * 20480)
    expected[start:end] = bytes(end - start)
    for verb in ("unmap", "write_zeroes"):
        write(behind, 0, b"x" * 20480)
        if verb == "unmap":
            behind.unmap(start, end - start)
        else:
            behind.write_zeroes(start, end - start, may_unmap=False)
        assert read(behind, 0, 20480) == expected
        behind.flush()
        assert content_of(below, 0, 20480) == expected


def test_a_range_may_begin_and_end_within_blocks(behind: Checked, below: Below) -> None:
    data = bytes(range(1, 201)) * 41
    write(behind, 4000, data)
    assert read(behind, 4000, len(data)) == data
    assert read(behind, 3999, len(data) + 2) == b"\0" + data + b"\0"
    behind.flush()
    assert content_of(below, 4000, len(data)) == data


def test_a_new_size_is_that_of_the_layer_below(behind: Checked, below: Below) -> None:
    write(behind, (1 << 20) - 512, b"end " * 128)
    behind.resize((1 << 20) + 512)
    assert below.geometry.size == behind.geometry.size == (1 << 20) + 512
    assert read(behind, (1 << 20) - 512, 1024) == b"end " * 128 + bytes(512)
    behind.resize((1 << 20) - 512)
    behind.resize(1 << 20)
    assert not any(read(behind, (1 << 20) - 512, 512))


@pytest.mark.parametrize(
    ("held", "fetched"),
    [((1,), [(0, 3)]), ((), [(0, 3)]), ((0,), [(1, 3)]), ((0, 1, 2), []), ((2,), [(0, 2)])],
)
def test_blocks_that_are_missing_are_fetched_at_once_with_those_between_them(
    through: Checked, below: Below, held: tuple[int, ...], fetched: list[tuple[int, int]]
) -> None:
    MemoryHandler.write(below, 0, [memoryview(CONTENT)[:SIZE]])
    for block in held:
        read(through, block * 4096, 1)
    below.asked.clear()
    assert read(through, 100, 12000) == CONTENT[100:12100]
    expected = [("read", first * 4096, (last - first) * 4096) for first, last in fetched]
    assert below.asked == expected
    below.asked.clear()
    assert read(through, 0, 12288) == CONTENT[:12288]
    assert below.asked == []


def test_missing_blocks_that_are_far_apart_are_fetched_one_by_one(below: Below) -> None:
    for disk in opened(on(below, size=256 << 10)):
        read(disk, 4096, 68 << 10)
        below.asked.clear()
        read(disk, 0, 76 << 10)
        assert below.asked == [("read", 0, 4096), ("read", 18 * 4096, 4096)]
    for disk in opened(on(below, size=256 << 10)):
        read(disk, 4096, 64 << 10)
        below.asked.clear()
        read(disk, 0, 76 << 10)
        assert below.asked == [("read", 0, 76 << 10)]


def test_a_block_between_missing_ones_that_is_newer_than_below_is_read_from_the_cache(
    behind: Checked, below: Below
) -> None:
    MemoryHandler.write(below, 0, [memoryview(b"a" * 12288)])
    write(behind, 4096, b"b" * 4096)
    for _ in range(2):
        assert read(behind, 0, 12288) == b"a" * 4096 + b"b" * 4096 + b"a" * 4096
    behind.flush()
    assert content_of(below, 0, 12288) == b"a" * 4096 + b"b" * 4096 + b"a" * 4096


def test_what_is_written_through_is_held_if_its_block_was(through: Checked, below: Below) -> None:
    for block in (0, 1, 5):
        read(through, block * 4096, 1)
    below.asked.clear()
    data = bytes(range(1, 201)) * 102
    write(through, 4096 + 10, data)
    assert below.asked == [("write", 4096 + 10, len(data))]
    below.asked.clear()
    for offset, length in ((4096 + 10, 4086), (20480, 4096)):
        at = offset - 4106
        assert read(through, offset, length)[: len(data) - at] == data[at : at + length]
    assert below.asked == []
    assert read(through, 4106, len(data)) == data
    assert below.asked == [("read", 8192, 12288)]


def test_a_write_through_that_fails_forgets_its_blocks(through: Checked, below: Below) -> None:
    read(through, 0, 12288)
    below.fails = True
    with pytest.raises(OSError, match="broken"):
        write(through, 4000, b"new" * 100)
    below.asked.clear()
    read(through, 0, 12288)
    assert below.asked == [("read", 0, 8192)]


def test_of_writes_through_at_once_none_is_held(through: Checked, below: Below) -> None:
    read(through, 0, 4096)
    real = below.write

    def overtaken(offset: int, views: Views, *, fua: bool = False) -> None:
        below.write = real  # type: ignore[method-assign]
        write(through, 0, b"first")
        real(offset, views)

    below.write = overtaken  # type: ignore[method-assign]
    write(through, 2, b"last")
    below.asked.clear()
    assert read(through, 0, 6) == b"filast"
    assert below.asked == [("read", 0, 4096)]


def test_dirty_blocks_go_below_in_order_and_those_that_adjoin_at_once(below: Below) -> None:
    for disk in opened(on(below, mode="write-back", size=1 << 20)):
        for block in (40, 3, 15, 16, 2, 17, 5):
            write(disk, block * 4096, bytes([block]) * 4096)
        disk.flush()
        assert below.asked == [
            ("write", 2 * 4096, 8192),
            ("write", 5 * 4096, 4096),
            ("write", 15 * 4096, 3 * 4096),
            ("write", 40 * 4096, 4096),
            ("flush",),
        ]


def test_a_write_to_the_layer_below_takes_a_mebibyte(below: Below) -> None:
    below.resize(2 << 20)
    for disk in opened(on(below, mode="write-back", size=4 << 20)):
        write(disk, 0, bytes(2 << 20))
        disk.flush()
        assert below.asked == [("write", 0, 1 << 20), ("write", 1 << 20, 1 << 20), ("flush",)]


def test_room_is_made_for_the_blocks_of_64_lines(below: Below) -> None:
    below.resize(16 << 20)
    for disk in opened(on(below, mode="write-back", size=8 << 20)):
        write(disk, 4 << 20, bytes(8 << 20))
        assert below.asked == []
        write(disk, 0, bytes(4096))
        assert below.asked == [("write", (4 + at) << 20, 1 << 20) for at in range(4)]


def test_the_last_block_of_the_disk_is_whole_though_it_is_short(below: Below) -> None:
    below.resize((1 << 20) + 1024)
    for disk in opened(on(below, mode="write-back")):
        write(disk, (1 << 20) - 4096, b"x" * 5120)
        assert below.asked == []
        write(disk, (1 << 20) + 512, b"y" * 512)
        assert below.asked == []
        disk.flush()
    assert content_of(below, (1 << 20) - 4096, 5120) == b"x" * 4608 + b"y" * 512
    below.asked.clear()
    for disk in opened(on(below, mode="write-back")):
        write(disk, (1 << 20) + 512, b"z" * 512)
        assert below.asked == [("read", 1 << 20, 1024)]
    assert content_of(below, 1 << 20, 1024) == b"x" * 512 + b"z" * 512


# Races


def meanwhile(disk: Checked, below: Below, offset: int, data: bytes) -> None:
    """Write while somebody is fetching."""

    def interfere() -> None:
        below.before_read = lambda: None
        thread = threading.Thread(target=write, args=(disk, offset, data))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    below.before_read = interfere


def test_a_fetch_that_a_write_overtakes_is_not_kept(through: Checked, below: Below) -> None:
    meanwhile(through, below, 0, b"new")
    read(through, 0, 4096)
    assert read(through, 0, 3) == b"new"


def test_a_fetch_that_a_write_into_the_cache_overtakes_is_not_kept(behind: Checked, below: Below) -> None:
    MemoryHandler.write(below, 0, [memoryview(b"a" * 8192)])

    def evicted() -> None:
        below.before_read = lambda: None
        thread = threading.Thread(target=write, args=(behind, 4096, b"n" * 4096))
        thread.start()
        thread.join(10)
        behind.flush()
        handler = behind.next
        assert isinstance(handler, CacheHandler)
        handler._lines.drop_clean(0, 4)

    below.before_read = evicted
    assert read(behind, 0, 8192) == b"a" * 8192
    assert read(behind, 0, 8192) == b"a" * 4096 + b"n" * 4096


def test_a_fill_that_a_write_overtakes_is_done_again(behind: Checked, below: Below) -> None:
    meanwhile(behind, below, 0, b"n" * 4096)
    write(behind, 10, b"mine")
    assert read(behind, 8, 8) == b"nnminenn"


def test_a_write_that_begins_while_a_fetch_does_is_not_missed(
    through: Checked, below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_under, real_write = cache_traffic.Span, below.write
    was_read = threading.Event()
    writer = threading.Thread(target=write, args=(through, 0, b"new"))

    def under(first: int, last: int, *, stale: bool = False) -> cache_traffic.Span:
        monkeypatch.setattr(cache_traffic, "Span", real_under)
        fetch = real_under(first, last, stale)
        writer.start()
        writer.join(0.2)  # it has to wait until others can see the fetch
        return fetch

    def slow_write(offset: int, views: Views, *, fua: bool = False) -> None:
        was_read.wait(10)
        real_write(offset, views, fua=fua)

    def before_read() -> None:
        was_read.set()
        writer.join(10)

    monkeypatch.setattr(cache_traffic, "Span", under)
    below.write = slow_write  # type: ignore[method-assign]
    below.before_read = before_read
    read(through, 0, 4096)
    below.before_read = lambda: None
    assert read(through, 0, 3) == b"new"


def test_a_write_waits_for_no_unmap_of_another_block(behind: Checked, below: Below) -> None:
    real = below.unmap

    def unmap(offset: int, length: int) -> None:
        beside = threading.Thread(target=write, args=(behind, 0, b"n" * 4096))
        beside.start()
        beside.join(10)
        assert not beside.is_alive()
        real(offset, length)

    below.unmap = unmap  # type: ignore[method-assign]
    behind.unmap(4096, 4096)
    assert read(behind, 0, 8192) == b"n" * 4096 + bytes(4096)


# Crashes

FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(todo=steps(SIZE // 512), lasts=st.integers(0, 60), seed=st.integers(0, 1 << 32), through=st.booleans())
def test_power_cut_leaves_what_flushes_promised(
    todo: list[Step], lasts: int, seed: int, through: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="crash-", dir=MEMORY_DIRECTORY) as name:
        (Path(name) / "disk.img").write_bytes(CONTENT[:SIZE])
        document = (cache if through else back)(Path(name))
        cut_power(Path(name), document, Promises(CONTENT[:SIZE]), todo, lasts=lasts, seed=seed)


SCRIPT = [
    Step("write", 0, 3, 1),
    Step("write", 200, 150, 2),
    Step("flush"),
    Step("write_fua", 130, 10, 3),
    Step("unmap", 100, 150),
    Step("write", 1, 1, 4),
    Step("write_zeroes", 0, 200, 5),
    Step("write", 639, 1, 6),
    Step("flush"),
    Step("write", 250, 5, 7),
]


def test_kill_at_every_call_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    at, came_so_far = 0, True
    while came_so_far:
        where = tmp_path / str(at)
        where.mkdir()
        (where / "disk.img").write_bytes(CONTENT[:SIZE])
        came_so_far = kill(back, where, Promises(CONTENT[:SIZE]), SCRIPT, at)
        at += 1
    assert at > 10


def abandoned(directory: Path) -> None:
    """Leave a dirty block as a process does that is killed."""
    (directory / "disk.img").write_bytes(CONTENT[:SIZE])
    stack = build(back(directory))
    write(stack.open(), 0, b"acknowledged")
    handler = stack.layers[1]
    assert isinstance(handler, CacheHandler)
    handler._lines.close()
    stack.layers[0].close()


@pytest.mark.parametrize("options", [{"mode": "write-through"}, {"block_size": 8192, "size": "1MiB"}])
def test_writes_that_wait_are_not_forgotten(tmp_path: Path, options: dict[str, object]) -> None:
    abandoned(tmp_path)
    with pytest.raises(UsageError, match=r'waiting in its cache; open it once .* "block_size": 4096'):
        build(back(tmp_path, **options)).open()
    read_only = {"handler": "file", "path": str(tmp_path / "disk.img"), "read_only": True}
    with pytest.raises(UsageError, match="waiting in its cache"):
        build({**back(tmp_path), "next": read_only}).open()
    with build(back(tmp_path)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"
    assert (tmp_path / "disk.img").read_bytes().startswith(b"acknowledged")
    with build({**back(tmp_path), **options}):
        pass


def test_writes_that_wait_are_not_passed_by_for_want_of_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "__init__", refuse)
        with pytest.raises(OSError, match="broken"):
            build(back(tmp_path)).open()
    with build(back(tmp_path)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


def test_two_disks_cannot_be_behind_one_cache(below: Below, behind: Checked) -> None:
    with pytest.raises(InUseError, match="in use by another process or disk"):
        on(below, mode="write-back").open()
    reader = on(below)
    reader.open()
    reader.close()


def test_nothing_is_left_behind(tmp_path: Path, own_tmpfs_directory: Path) -> None:
    (tmp_path / "disk.img").write_bytes(CONTENT[:SIZE])
    for document in (cache(tmp_path), back(tmp_path)):
        with build(document) as disk:
            write(disk, 0, b"x" * 8192)
            read(disk, 0, SIZE)
        assert list(own_tmpfs_directory.iterdir()) == []


def test_a_cache_smaller_than_a_block(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="smaller than one of its blocks"):
        build(cache(tmp_path, size=4095))


# Storage that fails


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the storage of caches take so many more writes, and none after them."""
    left = [1 << 30]

    def limited(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any) -> int:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(real(*arguments))

        monkeypatch.setattr(os, name, call)

    limited("pwrite")
    limited("pwritev")
    return lambda writes: left.__setitem__(0, writes)


def content_of(below: Below, offset: int, length: int) -> bytes:
    room = bytearray(length)
    MemoryHandler.read(below, offset, [memoryview(room)])
    return bytes(room)


def test_reads_go_past_a_cache_that_is_full(
    through: Checked, below: Below, full: Callable[[int], None]
) -> None:
    MemoryHandler.write(below, 0, [memoryview(CONTENT)[:SIZE]])
    full(3)
    for _ in range(2):
        for offset in range(0, SIZE, 4096):
            assert read(through, offset, 4096) == CONTENT[offset : offset + 4096]


def test_a_full_cache_keeps_what_is_used_most(
    through: Checked, below: Below, full: Callable[[int], None]
) -> None:
    for block in (0, 4):
        read(through, block * 4096, 1)

    class OnlyTwo(TmpfsStore):
        """A file for which there is memory for two blocks."""

        used = 2

        def put_views(self, at: int, views: Views) -> None:
            if self.used == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().put_views(at, views)
            self.used += 1

        def free(self, at: int, length: int) -> None:
            super().free(at, length)
            self.used -= 1

    handler = through.next
    assert isinstance(handler, CacheHandler)
    assert handler._lines.data is not None
    handler._lines.data.__class__ = OnlyTwo
    for block in (0, 8, 8, 0, 12, 0):
        read(through, block * 4096, 1)
    below.asked.clear()
    for block in (0, 12):
        read(through, block * 4096, 1)
    assert below.asked == []


@pytest.mark.parametrize("writes", range(6))
def test_writes_go_past_a_cache_that_is_full(
    behind: Checked, below: Below, full: Callable[[int], None], writes: int
) -> None:
    MemoryHandler.write(below, 0, [memoryview(b"D" * 16384)])
    full(writes)
    write(behind, 4096, b"N" * 512)
    write(behind, 0, b"W" * 4096)
    assert read(behind, 0, 8192) == b"W" * 4096 + b"N" * 512 + b"D" * 3584
    full(1 << 30)
    write(behind, 4096 + 1024, b"M" * 512)
    behind.flush()
    assert content_of(below, 0, 12288) == (
        b"W" * 4096 + b"N" * 512 + b"D" * 512 + b"M" * 512 + b"D" * 2560 + b"D" * 4096
    )


FAILURES = [OSError(errno.EIO, "broken"), MemoryError("broken")]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_dirty_block_that_cannot_be_changed_is_written_below_first(
    behind: Checked, below: Below, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    write(behind, 0, b"a" * 4096)

    def put_views(*_: object) -> None:
        raise failure

    monkeypatch.setattr(TmpfsStore, "put_views", put_views)
    write(behind, 512, b"b" * 512)
    assert content_of(below, 0, 4096) == b"a" * 512 + b"b" * 512 + b"a" * 3072
    assert read(behind, 0, 4096) == content_of(below, 0, 4096)


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("length", [512, 4096])
@pytest.mark.parametrize("held", [False, True], ids=["other", "held"])
def test_a_write_that_cannot_be_listed_is_below_or_nowhere(
    behind: Checked,
    below: Below,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    length: int,
    *,
    held: bool,
) -> None:
    """A read of data that is nowhere else would return the former data later, when the block is evicted."""
    MemoryHandler.write(below, 0, [memoryview(b"a" * 4096)])
    if held:
        read(behind, 0, 4096)
    real = TmpfsStore.put

    def put(file: TmpfsStore, at: int, data: bytes | memoryview) -> None:
        if file.path.suffix == ".dirty":
            raise failure
        real(file, at, data)

    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put", put)
        write(behind, 0, b"b" * length)
        assert read(behind, 0, 4096) == content_of(below, 0, 4096) == b"b" * length + b"a" * (4096 - length)
    behind.flush()
    assert read(behind, 0, 4096) == content_of(below, 0, 4096)


def test_a_list_that_cannot_be_changed_ends_in_an_error_or_past_the_cache(
    behind: Checked, below: Below, full: Callable[[int], None]
) -> None:
    for block in range(16):
        write(behind, block * 4096, bytes([block + 1]) * 4096)
    full(0)
    with pytest.raises(OSError, match="list of dirty blocks"):
        write(behind, 512, b"b" * 512)
    write(behind, 20 * 4096, b"x" * 4096)
    assert content_of(below, 20 * 4096, 4096) == b"x" * 4096
    behind.flush()
    assert read(behind, 4096, 4096) == content_of(below, 4096, 4096) == b"\2" * 4096


def test_a_cache_that_cannot_be_made_lets_everything_past(
    below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for mode in ("write-through", "write-back"):
        handler = on(below, mode=mode)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", refuse)
            handler.open()
        disk = Checked(handler)
        disk.open()
        write(disk, 100, mode.encode())
        assert read(disk, 100, len(mode)) == mode.encode() == content_of(below, 100, len(mode))
        disk.flush()
        handler.close()


def test_a_cache_that_fails_to_open_leaves_nothing(
    below: Below, monkeypatch: pytest.MonkeyPatch, own_tmpfs_directory: Path
) -> None:
    real, calls = os.pwritev, iter([True, False])

    def once(*arguments: Any) -> int:
        if not next(calls, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, "pwritev", once)
    handler = on(below, mode="write-back")
    handler.open()
    handler.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not any(path.stat().st_size > 4096 + 8 for path in own_tmpfs_directory.iterdir())


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_block_that_cannot_be_read_is_read_below(
    through: Checked, below: Below, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def broken(*_: object) -> None:
        raise failure

    read(through, 0, 4096)
    MemoryHandler.write(below, 0, [memoryview(b"below")])
    monkeypatch.setattr(TmpfsStore, "get", broken)
    assert read(through, 0, 5) == b"below"


def test_a_dirty_block_that_cannot_be_read_is_an_error(
    behind: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    write(behind, 0, b"x" * 4096)
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "get", broken)
        with pytest.raises(OSError, match="broken"):
            read(behind, 0, 5)
        with pytest.raises(OSError, match="broken"):
            behind.flush()
    behind.flush()
    assert read(behind, 0, 1) == b"x"


def test_a_block_that_is_changed_while_it_is_written_back_stays_dirty(behind: Checked, below: Below) -> None:
    write(behind, 0, b"old" * 1000 + b"." * 1096)
    real = below.write

    def overtaken(offset: int, views: Views, *, fua: bool = False) -> None:
        real(offset, views, fua=fua)
        below.write = real  # type: ignore[method-assign]
        write(behind, 0, b"new")

    below.write = overtaken  # type: ignore[method-assign]
    behind.flush()
    assert read(behind, 0, 6) == b"newold"
    behind.flush()
    assert content_of(below, 0, 6) == b"newold"


def test_an_unmap_that_fails_below_forgets_nothing(behind: Checked, below: Below) -> None:
    write(behind, 0, b"kept" * 1024)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    below.unmap = refuse  # type: ignore[method-assign]
    with pytest.raises(OSError, match="broken"):
        behind.unmap(0, 4096)
    assert read(behind, 0, 4) == b"kept"
    behind.flush()
    assert content_of(below, 0, 4) == b"kept"


def test_an_unmap_that_cannot_be_noted_forgets_nothing(
    behind: Checked, below: Below, full: Callable[[int], None]
) -> None:
    write(behind, 0, b"kept" * 1024)
    full(0)
    with pytest.raises(OSError, match="No space"):
        behind.unmap(0, 4096)
    full(1 << 30)
    assert read(behind, 0, 4) == b"kept"
    behind.flush()
    assert content_of(below, 0, 4) == b"kept"


def test_a_write_waits_for_an_unmap_of_its_block(behind: Checked, below: Below) -> None:
    write(behind, 0, b"old" * 1000 + bytes(1096))
    thread = threading.Thread(target=write, args=(behind, 0, b"n" * 4096))
    real = below.unmap

    def slow(offset: int, length: int) -> None:
        thread.start()
        thread.join(0.05)
        real(offset, length)

    below.unmap = slow  # type: ignore[method-assign]
    behind.unmap(0, 4096)
    thread.join()
    assert read(behind, 0, 4096) == b"n" * 4096
    behind.flush()
    assert content_of(below, 0, 4096) == b"n" * 4096


# Another medium


def test_writes_for_another_medium_are_not_written_to_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "inode_generation", lambda fd: os.fstat(fd).st_ino % 1000)
    abandoned(tmp_path)
    (tmp_path / "disk.img").rename(tmp_path / "right.img")
    (tmp_path / "disk.img").write_bytes(CONTENT[:SIZE])
    for document in (cache(tmp_path), back(tmp_path)):
        with pytest.raises(HostError, match="for another medium that this one has taken the place of"):
            build(document).open()
    (tmp_path / "right.img").rename(tmp_path / "disk.img")
    with build(back(tmp_path)) as disk:
        assert read(disk, 0, 12) == b"acknowledged"


def test_a_cache_of_another_medium_in_which_nothing_waits_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(CONTENT[:SIZE])
    stack = build(back(tmp_path))
    read(stack.open(), 0, 4096)
    handler = stack.layers[1]
    assert isinstance(handler, CacheHandler)
    for file in (handler._lines.data, handler._lines._dirty_list):
        assert file is not None
        file.close(forget=False)
    stack.layers[0].close()
    (tmp_path / "disk.img").unlink()
    (tmp_path / "other").write_bytes(b"z" * SIZE)
    (tmp_path / "other").rename(tmp_path / "disk.img")
    with build(back(tmp_path)) as disk:
        assert read(disk, 0, 4) == b"zzzz"
