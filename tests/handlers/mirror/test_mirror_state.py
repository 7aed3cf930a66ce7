"""The state file of a mirror: the dirty region log on stable storage, and how regions are forgotten."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from tests.polling import wait_until
from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.mirror import state as mirror_state
from vscsihba.handlers.mirror.metadata import Metadata
from vscsihba.handlers.mirror.state import IdleRegions, MirrorState, create_state
from vscsihba.handlers.shared import sectors
from vscsihba.handlers.shared.sectors import PER_SECTOR
from vscsihba.handlers.shared.superblock import Superblock
from vscsihba.handlers.shared.vectored import write_bytes

REGION = 65536
REGIONS = 2 * PER_SECTOR + 100
EVERY = set(range(REGIONS))


def metadata(regions: int) -> Metadata:
    return Metadata(uuid="m", event=1, session="s", size=regions * REGION, region_size=REGION, legs=())


class Clock:
    """The time that the state file sees, in seconds."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("vscsihba.handlers.mirror.state.time.monotonic", lambda: clock.now)
    return clock


@contextmanager
def opened(path: Path) -> Iterator[MirrorState]:
    state = MirrorState(str(path))
    try:
        yield state
    finally:
        state.close()


@pytest.fixture
def state(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[MirrorState]:
    """An open state file with three sectors of regions, of which none is dirty.

    Regions around a mark are not marked with it, so that tests can tell which regions are dirty.
    """
    monkeypatch.setattr(mirror_state, "_DOUBLINGS", 0)
    create_state(str(tmp_path / "state"), metadata(REGIONS))
    with opened(tmp_path / "state") as state:
        state.clear()
    with opened(tmp_path / "state") as state:
        assert state.dirty() == []
        clock.now += 100
        yield state


def stored(state: MirrorState) -> set[int]:
    """The regions that are dirty for a process that opens the file now."""
    copy = Path(f"{state.path}.copy")
    shutil.copy(state.path, copy)
    with opened(copy) as other:
        return set(other.dirty())


def write(state: MirrorState, first: int, last: int) -> None:
    with state.writing(first, last):
        pass


def broken(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("regions", [1, PER_SECTOR - 1, PER_SECTOR, PER_SECTOR + 1, REGIONS])
def test_every_region_of_a_new_state_file_is_dirty(tmp_path: Path, regions: int) -> None:
    path = tmp_path / "state"
    create_state(str(path), metadata(regions))
    assert path.stat().st_size == 8192 + 512 * -(-regions // PER_SECTOR)
    assert list(tmp_path.iterdir()) == [path]
    with opened(path) as state:
        assert state.dirty() == list(range(regions))
        state.clear()
    with opened(path) as state:
        assert state.dirty() == []


def test_a_state_file_that_cannot_be_made_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"before")
    (tmp_path / "state.m.new").write_bytes(b"of a process that was killed")
    for place in ("write_bytes", "sync_directory", "superblock.create"):
        with monkeypatch.context() as patch:
            patch.setattr(f"vscsihba.handlers.mirror.state.{place}", broken)
            with pytest.raises(OSError, match="error"):
                create_state(str(path), metadata(1))
        assert list(tmp_path.iterdir()) == [path]
    create_state(str(path), metadata(1))


def test_a_region_is_dirty_on_stable_storage_before_it_is_written(state: MirrorState) -> None:
    synced: list[set[int]] = []
    real = FileHandler.flush

    def flush(handler: FileHandler) -> None:
        real(handler)
        synced.append(stored(state))

    expected: set[int] = set()
    for first, last in ((5, 7), (PER_SECTOR - 1, PER_SECTOR + 1), (PER_SECTOR + 3, 2 * PER_SECTOR), (99, 99)):
        expected |= set(range(first, last))
        with mock.patch.object(FileHandler, "flush", flush), state.writing(first, last):
            assert stored(state) == set(state.dirty()) == expected
    assert len(synced) == 3
    assert synced[-1] == expected
    with mock.patch.object(FileHandler, "flush", broken):
        write(state, 5, 7)  # dirty already: nothing has to be stored


@pytest.mark.parametrize(
    ("before", "written", "ahead"),
    [
        ([], (0, 1), 0),
        ([(9, 10)], (11, 12), 0),  # not right before it
        ([(9, 10)], (10, 11), 1),
        ([(3, 10), (1, 2)], (10, 12), 7),
        ([(0, 10)], (10, 11), 10),
        ([(100, 300)], (300, 301), 64),
        ([(PER_SECTOR - 8, PER_SECTOR - 2)], (PER_SECTOR - 2, PER_SECTOR - 1), 6),  # in two sectors
        ([(REGIONS - 20, REGIONS - 5)], (REGIONS - 5, REGIONS - 3), 3),  # to the end of the disk
        ([(REGIONS - 20, REGIONS - 1)], (REGIONS - 1, REGIONS), 0),
    ],
)
def test_regions_ahead_of_a_sequential_writer_are_marked_with_its_own(
    state: MirrorState, clock: Clock, before: list[tuple[int, int]], written: tuple[int, int], ahead: int
) -> None:
    with mock.patch.object(mirror_state, "_AHEAD", 0):
        for each in before:
            write(state, *each)
    expected = set(state.dirty()) | set(range(written[0], written[1] + ahead))
    with mock.patch.object(FileHandler, "flush", autospec=True, side_effect=FileHandler.flush) as flushes:
        write(state, *written)
    assert flushes.call_count == 1
    assert set(state.dirty()) == stored(state) == expected
    # They count as written when they are marked.
    for _ in range(2):
        clock.now += 6
        assert not set(range(written[0], written[1] + ahead)) & set(state.idle(()).numbers)
    clock.now += 6
    assert set(range(written[0], written[1] + ahead)) <= set(state.idle(()).numbers)


def test_regions_around_a_mark_are_marked_with_it_the_more_the_more_marks_there_are(
    state: MirrorState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_state, "_DOUBLINGS", 4)
    expected: set[int] = set()
    for region, around in ((30, 1), (103, 2), (206, 4), (333, 8), (449, 16), (510, 16)):
        first = region // around * around
        expected |= set(range(first, first + around))
        write(state, region, region + 1)
        assert set(state.dirty()) == stored(state) == expected
        write(state, first, first + around)  # marks nothing
    for first, last in ((600, 601), (639, 642), (1023, 1024)):
        write(state, first, last)
        expected |= set(range(first // 16 * 16, -(-last // 16) * 16))
        assert set(state.dirty()) == stored(state) == expected
    clock.now += 6
    state.idle(())  # in the next period there was no mark yet
    write(state, 700, 701)
    write(state, 801, 802)
    assert set(state.dirty()) == stored(state) == expected | {700, 800, 801}
    for _ in range(3):
        clock.now += 6
        found = state.idle(())
    assert set(found.numbers) == set(state.dirty())


def test_no_more_is_marked_than_the_disk_has(state: MirrorState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_state, "_DOUBLINGS", 4)
    for region in range(0, 100, 20):
        write(state, region, region + 1)
    write(state, REGIONS - 1, REGIONS)
    assert set(range(REGIONS // 16 * 16, REGIONS)) == {region for region in state.dirty() if region > 500}
    assert stored(state) == set(state.dirty())


def test_a_mark_that_fails_is_not_counted(state: MirrorState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_state, "_DOUBLINGS", 4)
    for _ in range(3):
        with mock.patch.object(FileHandler, "flush", broken), pytest.raises(OSError, match="error"):
            write(state, 5, 6)
    write(state, 5, 6)
    assert state.dirty() == [5]


def test_one_flush_marks_the_regions_of_all_that_wait(state: MirrorState) -> None:
    entered, free, flushes = threading.Event(), threading.Event(), []
    real = FileHandler.flush

    def slow(handler: FileHandler) -> None:
        flushes.append(stored(state))
        entered.set()
        assert free.wait(30)
        real(handler)

    with mock.patch.object(FileHandler, "flush", slow):
        threads = [
            threading.Thread(target=write, args=(state, region, region + 1)) for region in (5, 50, 500)
        ]
        threads[0].start()
        assert entered.wait(30)
        for number, thread in enumerate(threads[1:]):
            thread.start()
            wait_until(lambda: len(state._unmarked) == number + 2)  # noqa: B023
        assert state.dirty() == []
        free.set()
        for thread in threads:
            thread.join(30)
    assert flushes == [{5}, {5, 50, 500}]
    assert state.dirty() == [5, 50, 500]
    assert state._unmarked == []


def test_who_waited_for_a_flush_that_failed_marks_its_regions_itself(state: MirrorState) -> None:
    entered, free = threading.Event(), threading.Event()
    real, failed = FileHandler.flush, list[bool]()

    def once(handler: FileHandler) -> None:
        if not failed:
            failed.append(True)
            entered.set()
            assert free.wait(30)
            broken()
        real(handler)

    def fail() -> None:
        with pytest.raises(OSError, match="error"):
            write(state, 5, 6)

    with mock.patch.object(FileHandler, "flush", once):
        first, second = threading.Thread(target=fail), threading.Thread(target=write, args=(state, 50, 51))
        first.start()
        assert entered.wait(30)
        second.start()
        wait_until(lambda: len(state._unmarked) == 2)
        free.set()
        first.join(30)
        second.join(30)
    assert state.dirty() == [50]
    assert 50 in stored(state)


def test_marks_are_told_of_once_they_are_there(state: MirrorState) -> None:
    told: list[list[int]] = []
    state.on_mark = lambda: told.append(state.dirty())
    write(state, 5, 6)
    write(state, 5, 6)
    assert told == [[5]]


def test_the_time_until_regions_may_be_idle(state: MirrorState, clock: Clock) -> None:
    assert state.until_idle() is None
    state.idle(())
    write(state, 5, 6)
    assert state.until_idle() == 5.0
    clock.now += 4
    assert state.until_idle() == 1.0
    clock.now += 1
    assert state.until_idle() == 0.0
    state.idle(())  # a new period begins
    assert state.until_idle() == 5.0
    clock.now += 7
    assert state.until_idle() == 0.0


def test_a_change_begins_at_once_where_all_is_dirty(state: MirrorState, clock: Clock) -> None:
    assert not state.try_begin(range(5, 6))
    write(state, 5, 7)
    assert not state.try_begin(range(5, 8))
    assert state.try_begin(range(5, 7))
    assert idle_later(state, clock).numbers == ()
    state.end(range(5, 7))
    assert idle_later(state, clock).numbers == (5, 6)


def test_all_regions_can_be_marked(state: MirrorState) -> None:
    state.mark_all()
    assert set(state.dirty()) == stored(state) == EVERY


def test_a_note_is_made_in_the_sectors_that_it_concerns(state: MirrorState) -> None:
    before = Path(state.path).read_bytes()
    write(state, 2 * PER_SECTOR - 3, 2 * PER_SECTOR)
    after = Path(state.path).read_bytes()
    assert len(after) == len(before)
    changed = {
        number
        for number in range(len(after) // 512)
        if before[number * 512 :][:512] != after[number * 512 :][:512]
    }
    assert changed == {16 + 1}


def test_a_damaged_sector_counts_as_dirty_and_no_other_one(state: MirrorState) -> None:
    write(state, 3, 4)
    state.close()
    damaged = bytearray(Path(state.path).read_bytes())
    damaged[8192 + 512 + 100] ^= 1
    Path(state.path).write_bytes(damaged)
    with opened(Path(state.path)) as found:
        assert set(found.dirty()) == {3, *range(PER_SECTOR, 2 * PER_SECTOR)}


@pytest.mark.parametrize("value", [2, 255])
def test_a_sector_with_an_unknown_state_counts_as_dirty(state: MirrorState, value: int) -> None:
    state.close()
    with Path(state.path).open("r+b") as file:
        file.seek(8192 + 512)
        file.write(sectors.encode(1, bytes([0, value]) + bytes(PER_SECTOR - 2), "m"))
    with opened(Path(state.path)) as found:
        assert found.dirty() == list(range(PER_SECTOR, 2 * PER_SECTOR))


def test_a_closed_state_file_is_free_and_closing_it_again_is_nothing(state: MirrorState) -> None:
    with pytest.raises(InUseError):
        MirrorState(state.path)
    state.close()
    with opened(Path(state.path)):
        state.close()
        with pytest.raises(InUseError):
            MirrorState(state.path)


def test_a_damaged_state_file_is_closed_again(state: MirrorState) -> None:
    state.close()
    Path(state.path).write_bytes(bytes(8192 + 512))
    for _ in range(2):
        with pytest.raises(HostError, match=rf"{state.path}: "):
            MirrorState(state.path)


def test_a_state_file_that_cannot_be_read_is_closed_again(state: MirrorState) -> None:
    state.close()
    with mock.patch.object(mirror_state, "read_bytes", broken), pytest.raises(OSError, match="error"):
        MirrorState(state.path)
    with opened(Path(state.path)):
        pass


# Forgetting


def test_a_region_is_forgotten_when_it_was_not_written_for_a_period(state: MirrorState, clock: Clock) -> None:
    assert state.idle(()).numbers == ()
    for region in (5, PER_SECTOR + 1, REGIONS - 1):
        write(state, region, region + 1)
    clock.now += 4.9
    assert state.idle(()) == IdleRegions()
    for _ in range(2):
        clock.now += 5.1
        assert state.idle(()).numbers == ()
    clock.now += 5.1
    write(state, REGIONS - 1, REGIONS)
    found = state.idle(())
    assert found.numbers == (5, PER_SECTOR + 1)
    with mock.patch.object(mirror_state, "write_bytes", wraps=write_bytes) as writes:
        state.forget(found, ())
    assert writes.call_count == 2  # sectors
    assert state.dirty() == [REGIONS - 1]
    assert stored(state) == {REGIONS - 1}


def test_periods_are_counted_from_the_last_call(state: MirrorState, clock: Clock) -> None:
    write(state, 5, 6)
    state.idle(())
    clock.now += 4.9
    assert state.idle(()) == IdleRegions()
    clock.now += 0.2
    state.idle(())
    clock.now += 4.9
    assert state.idle(()) == IdleRegions()
    clock.now += 0.2
    assert state.idle(()).numbers == (5,)


def idle_later(state: MirrorState, clock: Clock, unequal: tuple[int, ...] = ()) -> IdleRegions:
    """Let several periods pass without a write, and return the regions that could be forgotten then."""
    for _ in range(3):
        clock.now += 6
        found = state.idle(unequal)
    return found


def test_regions_that_are_not_equal_or_are_being_written_are_not_forgotten(
    state: MirrorState, clock: Clock
) -> None:
    write(state, 0, 10)
    with state.writing(3, 5):
        assert idle_later(state, clock, (7,)).numbers == (0, 1, 2, 5, 6, 8, 9)
    found = idle_later(state, clock)
    assert found.numbers == tuple(range(10))
    with state.writing(3, 5):
        state.forget(found, (7,))
    assert state.dirty() == [3, 4, 7]


@pytest.mark.parametrize("further", [0, 1, 5])
def test_a_region_that_is_written_after_it_was_found_idle_stays_dirty(
    state: MirrorState, clock: Clock, further: int
) -> None:
    write(state, 0, 3)
    found = idle_later(state, clock)
    write(state, 1, 2)
    for _ in range(further):  # flushes that begin while this one goes on
        clock.now += 6
        state.idle(())
    state.forget(found, ())
    assert state.dirty() == [1]
    assert stored(state) == {1}


# The size of the disk


@pytest.mark.parametrize("more", [0, 1, PER_SECTOR - 100, PER_SECTOR, 3 * PER_SECTOR])
def test_a_log_that_grows_is_dirty_where_it_is_new(state: MirrorState, clock: Clock, more: int) -> None:
    write(state, 5, 6)
    state.save(metadata(REGIONS + more))
    expected = {5, *range(REGIONS, REGIONS + more)}
    assert set(state.dirty()) == stored(state) == expected
    assert Path(state.path).stat().st_size == 8192 + 512 * -(-(REGIONS + more) // PER_SECTOR)
    state.forget(idle_later(state, clock), ())
    assert stored(state) == set()
    write(state, REGIONS + more - 1, REGIONS + more)
    assert stored(state) == {REGIONS + more - 1}


def test_regions_of_a_disk_that_becomes_smaller_meanwhile_are_not_idle(
    state: MirrorState, clock: Clock
) -> None:
    write(state, 5, 6)
    idle_later(state, clock)
    clock.now += 6
    with mock.patch.object(state, "dirty", return_value=[5, REGIONS, REGIONS + 7]):
        assert state.idle(()).numbers == (5,)


def test_a_log_that_shrinks_ends_there(state: MirrorState, clock: Clock) -> None:
    write(state, 5, 6)
    write(state, 10, 11)
    found = idle_later(state, clock)
    with state.writing(8, 60):
        state.save(metadata(10))
    assert state.metadata == metadata(10)
    assert state.dirty() == [5, 8, 9]
    assert stored(state) == {5, 8, 9}
    state.forget(found, ())
    assert state.dirty() == [8, 9]
    write(state, 9, 10)
    assert len(state.dirty()) == 2


# Failures


VERBS: dict[str, Callable[[MirrorState], None]] = {
    "writing": lambda state: write(state, 1, 2),
    "clear": MirrorState.clear,
    "save": lambda state: state.save(metadata(REGIONS)),
    "forget": lambda state: state.forget(IdleRegions((300,), 1000), ()),
}


@pytest.mark.parametrize("verb", VERBS)
def test_after_any_failure_all_of_the_log_is_written_anew(state: MirrorState, verb: str) -> None:
    write(state, 300, 301)
    write(state, REGIONS - 1, REGIONS)
    with ExitStack() as failing:
        failing.enter_context(mock.patch.object(Superblock, "replace", broken))
        failing.enter_context(mock.patch.object(mirror_state, "write_bytes", broken))
        with pytest.raises(OSError, match="error"):
            VERBS[verb](state)
    known = set(state.dirty())
    with Path(state.path).open("r+b") as file:  # the kernel has thrown away what it could not store
        file.seek(8192)
        file.write(bytes(3 * 512))
    write(state, 7, 8)
    assert stored(state) == set(state.dirty()) == known | {7}


def test_a_file_is_opened_again_after_a_failure_only(state: MirrorState) -> None:
    with mock.patch.object(FileHandler, "open", autospec=True, side_effect=FileHandler.open) as opens:
        write(state, 1, 2)
        write(state, 3, 4)
        assert opens.call_count == 0
        with mock.patch.object(FileHandler, "flush", broken), pytest.raises(OSError, match="error"):
            write(state, 5, 6)
        write(state, 5, 6)
        write(state, 7, 8)
        assert opens.call_count == 1
    assert stored(state) == {1, 3, 5, 7}


def test_another_file_in_the_place_of_one_that_has_failed_is_not_written(state: MirrorState) -> None:
    with mock.patch.object(FileHandler, "flush", broken), pytest.raises(OSError, match="error"):
        write(state, 3, 4)
    path = Path(state.path)
    shutil.copy(path, path.with_name("other"))
    path.rename(path.with_name("away"))
    path.with_name("other").rename(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(OSError, match="is another file now"):
            write(state, 3, 4)
    assert path.read_bytes() == before
    with opened(path):  # it is not kept locked
        pass
    path.unlink()
    with pytest.raises(OSError, match="no such file"):
        write(state, 3, 4)
    assert not path.exists()
    path.with_name("away").rename(path)
    write(state, 3, 4)
    assert stored(state) == {3}


# Threads


@pytest.mark.parametrize(
    ("lock", "verb"),
    [
        *(("_saving", verb) for verb in VERBS),
        *(("lock", verb) for verb in (*VERBS, "idle", "shrink", "grow") if verb not in ("clear", "save")),
    ],
)
def test_a_change_waits_for_another_one(state: MirrorState, lock: str, verb: str) -> None:
    more: dict[str, Callable[[MirrorState], object]] = {
        "idle": lambda state: state.idle(()),
        "shrink": lambda state: state.save(metadata(10)),
        "grow": lambda state: state.save(metadata(REGIONS + 10)),
    }
    write(state, 300, 301)
    ended = threading.Event()

    def run() -> None:
        (VERBS | more)[verb](state)
        ended.set()

    thread = threading.Thread(target=run)
    with getattr(state, lock):
        thread.start()
        assert not ended.wait(0.1)
        assert state.dirty() == [300]
    thread.join(30)
    assert ended.is_set()


def test_a_write_to_a_dirty_region_does_not_begin_during_another_change(state: MirrorState) -> None:
    write(state, 5, 6)
    begun = threading.Event()

    def run() -> None:
        with state.writing(5, 6):
            begun.set()

    thread = threading.Thread(target=run)
    with state.lock:
        thread.start()
        assert not begun.wait(0.1)
    thread.join(30)
    assert begun.is_set()


def test_a_write_does_not_end_during_another_change(state: MirrorState) -> None:
    write(state, 5, 6)
    numbers, ended = range(5, 6), threading.Event()
    assert state.try_begin(numbers)

    def run() -> None:
        state.end(numbers)
        ended.set()

    thread = threading.Thread(target=run)
    with state.lock:
        thread.start()
        assert not ended.wait(0.1)
    thread.join(30)
    assert ended.is_set()


def test_a_region_that_is_being_written_is_known_until_all_writes_of_it_have_ended(
    state: MirrorState, clock: Clock
) -> None:
    one, other = state.writing(5, 6), state.writing(5, 6)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert idle_later(state, clock).numbers == ()
    other.__exit__(None, None, None)
    assert idle_later(state, clock).numbers == (5,)


def test_a_write_that_fails_leaves_its_regions_dirty(state: MirrorState, clock: Clock) -> None:
    def fail() -> None:
        with state.writing(5, 6):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state.dirty() == [5]
    assert idle_later(state, clock).numbers == (5,)


def test_the_metadata_are_stored(state: MirrorState) -> None:
    changed = msgspec.structs.replace(metadata(REGIONS), event=7)
    state.save(changed)
    assert state.metadata == changed
    state.close()
    with opened(Path(state.path)) as found:
        assert found.metadata == changed
