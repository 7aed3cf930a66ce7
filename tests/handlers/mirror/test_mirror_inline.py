"""Inline verbs of a mirror: when a write goes to all legs at once, and a write that fails half way."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tests.handlers.mirror.test_mirror import handler_of, mirror, standings, whole
from tests.handlers.mirror.test_mirror_faults import without_copying
from tests.polling import wait_until
from vscsihba.block import Views
from vscsihba.handlers.base import BatchedWrite, Handler, Mover, batched
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.mirror.inline import inline_verbs
from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.shared.abandonable_pool import Future
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import write

REGION = 65536
SIZE = 5 * REGION
PATIENCE = 20
NEW = b"new" * 1000


@pytest.fixture
def legs(tmp_path: Path) -> list[Path]:
    """Three images, with the data that a test begins with."""
    paths = [tmp_path / f"{name}.img" for name in "abc"]
    for path in paths:
        path.write_bytes(b"o" * SIZE)
    return paths


def document(legs: list[Path], **options: object) -> dict[str, object]:
    return {
        **mirror(legs[0].parent, overwrite=True, **options),
        "legs": [str(leg) for leg in legs],
    }


@pytest.fixture
def disk(legs: list[Path]) -> Iterator[Checked]:
    """A mirror of two files at rest, in which regions 0 and 1 are dirty."""
    with build(document(legs[:2])) as disk:
        wait_until(lambda: whole(disk))
        members_of(disk).state.clear()
    with build(document(legs[:2])) as disk:
        write(disk, REGION - 1, b"xx")
        assert members_of(disk).state.dirty() == [0, 1]
        yield disk


def members_of(disk: Checked) -> Members:
    return handler_of(disk)._members


def put(disk: Checked, offset: int, data: bytes) -> int:
    verbs = disk.inline
    assert verbs.write is not None
    return verbs.write([memoryview(data)], offset, verbs.write_flags)


def refused(disk: Checked, offset: int = 0, data: bytes = NEW) -> bool:
    """Whether a write is not done inline; it has changed nothing then, and legs are known to be equal."""
    members = members_of(disk)

    def state() -> object:
        contents = [leg.submit(content).result(PATIENCE) for leg in members.legs]
        return contents, list(members.regions._ranges._queue), list(members.state._writing)

    before = state()
    try:
        put(disk, offset, data)
    except BlockingIOError:
        assert state() == before
        assert not members.regions.unsettled
        return True
    return False


def content(handler: Handler) -> bytes:
    data = bytearray(SIZE)
    handler.read(0, [memoryview(data)])
    return bytes(data)


def stored(legs: list[Path], offset: int = 0, length: int = len(NEW)) -> list[bytes]:
    return [leg.read_bytes()[offset : offset + length] for leg in legs]


# Writes that go to all legs at once


def test_a_write_to_a_dirty_region_takes_no_thread_and_no_sync(disk: Checked, legs: list[Path]) -> None:
    with (
        mock.patch.object(MirrorLeg, "submit", side_effect=AssertionError),
        mock.patch.object(FileHandler, "flush", side_effect=AssertionError),
        mock.patch.object(FileHandler, "write", side_effect=AssertionError),
    ):
        assert put(disk, 100, NEW) == len(NEW)
        assert put(disk, REGION - 100, NEW) == len(NEW)
    assert stored(legs[:2], 100) == stored(legs[:2], REGION - 100) == [NEW, NEW]
    assert members_of(disk).state._writing == []
    assert members_of(disk).regions._ranges._queue == []


def test_several_views_are_one_write(disk: Checked, legs: list[Path]) -> None:
    verbs = disk.inline
    assert verbs.write is not None
    assert verbs.write([memoryview(b"one"), memoryview(b"two")], 7, verbs.write_flags) == 6
    assert stored(legs[:2], 7, 6) == [b"onetwo"] * 2


def test_a_write_to_a_region_that_is_not_dirty_is_refused(disk: Checked) -> None:
    assert refused(disk, 2 * REGION)
    assert refused(disk, 2 * REGION - 1)
    assert refused(disk, 2 * REGION - len(NEW) + 1)
    assert not refused(disk, 2 * REGION - len(NEW))
    write(disk, 2 * REGION, b"x")
    assert not refused(disk, 2 * REGION)


def test_a_leg_that_is_gone_is_not_written_and_one_that_is_behind_is(disk: Checked, legs: list[Path]) -> None:
    leg = members_of(disk).legs[1]
    for standing, expected in ((Standing.BEHIND, NEW), (Standing.GONE, b"xx")):
        leg.standing = standing
        assert put(disk, REGION, NEW if expected == NEW else b"no") == (3000 if expected == NEW else 2)
        assert stored(legs[1:2], REGION, 2) == [NEW[:2]]
    leg.standing = Standing.WHOLE


def test_a_write_through_filters_above_and_below(legs: list[Path]) -> None:
    below = [{"handler": "stats", "next": str(leg)} for leg in legs]
    stack = {"handler": "offset", "offset": 512, "next": {**document(legs), "legs": below}}
    with build(stack) as disk:
        write(disk, 0, b"x")
        handler = disk.next.next  # type: ignore[attr-defined]
        wait_until(lambda: all(leg.standing == "whole" for leg in handler.status()))
        wait_until(lambda: handler.progress is None and not handler._members.regions.unsettled)
        assert put(disk, 1000, NEW) == len(NEW)
    assert stored(legs, 1000 + 512) == [NEW] * 3


# Limits


def test_there_is_no_inline_write_where_a_leg_has_none(legs: list[Path]) -> None:
    stack = document(legs[:2])
    stack["legs"] = [
        str(legs[0]),
        {"handler": "error", "verbs": ["write"], "trigger": "/nonexistent", "next": str(legs[1])},
    ]
    with build(stack) as disk:
        assert disk.inline.write is None
        assert disk.inline.write_limit == 0
        assert disk.inline.read is not None


@pytest.mark.parametrize("limits", [(4096, 8192), (8192, 4096), (4096, 1 << 40)])
def test_the_limit_is_that_of_the_leg_with_the_smallest(disk: Checked, limits: tuple[int, int]) -> None:
    with ExitStack() as stack:
        for leg, limit in zip(members_of(disk).legs, limits, strict=True):
            stack.enter_context(limited(leg, limit))
        assert disk.inline.write_limit == 4096
        assert refused(disk, 0, bytes(4097))
        assert not refused(disk, 0, bytes(4096))


def limited(leg: MirrorLeg, limit: int) -> mock._patch:  # type: ignore[type-arg]
    inline = mock.Mock(write_limit=limit, write_flags=0, read=leg._inline.read)
    return mock.patch.object(leg, "_inline", inline)


def test_the_limit_is_a_megabyte_at_most(disk: Checked) -> None:
    with ExitStack() as stack:
        for leg in members_of(disk).legs:
            stack.enter_context(limited(leg, 1 << 40))
        assert disk.inline.write_limit == 1 << 20


# Refusals, after which nothing has happened


def test_a_write_that_overlaps_a_change_under_way_is_refused(disk: Checked) -> None:
    regions = members_of(disk).regions
    with regions.held(100, 50):
        assert refused(disk, 149)
        assert not refused(disk, 150)
    with regions.alone_in(1):
        assert refused(disk, REGION)
        assert refused(disk, REGION - 1)
        assert not refused(disk, REGION - len(NEW))
    assert not refused(disk, REGION)


@contextmanager
def under_way(disk: Checked, leg: MirrorLeg, begin: Callable[[], Future[None]]) -> Iterator[Future[None]]:
    """Begin a call that `hold` has made, and end it in the end."""
    future = begin()
    assert HELD.wait(PATIENCE)
    try:
        yield future
    finally:
        FREE.set()
        future.result(PATIENCE)
        wait_until(lambda: not leg._changes)
        HELD.clear()
        FREE.clear()


HELD, FREE = threading.Event(), threading.Event()


def hold(_handler: object) -> None:
    HELD.set()
    FREE.wait(PATIENCE)


def is_refused(disk: Checked) -> bool:
    try:
        return put(disk, 0, NEW) != len(NEW)
    except BlockingIOError:
        return True


@pytest.mark.parametrize("number", [0, 1])
def test_writes_are_refused_while_a_leg_flushes_or_a_change_of_it_takes_long(
    disk: Checked, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = members_of(disk).legs[number]
    with under_way(disk, leg, lambda: leg.begin_change(hold, waits=True)):
        assert is_refused(disk)
    assert not refused(disk)
    now = time.monotonic()
    with monkeypatch.context() as patch, under_way(disk, leg, lambda: leg.begin_change(hold)):
        for later, expected in ((0.0, False), (0.04, False), (1.0, True)):
            patch.setattr("vscsihba.handlers.mirror.leg.time.monotonic", lambda: now + later)  # noqa: B023
            assert is_refused(disk) == expected
    assert not refused(disk)


def test_a_write_releases_the_lock_of_the_log_once(disk: Checked) -> None:
    lock = members_of(disk).state.lock
    assert not is_refused(disk)
    with under_way(
        disk, members_of(disk).legs[0], lambda: members_of(disk).legs[0].begin_change(hold, waits=True)
    ):
        assert is_refused(disk)
    with members_of(disk).regions.held(0, len(NEW)):
        assert is_refused(disk)
    assert lock.acquire(blocking=False)
    assert not lock.acquire(blocking=False)
    lock.release()


def test_slow_changes_that_end_one_after_the_other_refuse_no_write(
    disk: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = members_of(disk).legs[1]
    now = time.monotonic()
    with monkeypatch.context() as patch, under_way(disk, leg, lambda: leg.begin_change(hold)):
        for later, ends, expected in (
            (0.9, False, True),
            (0.9, True, False),
            (0.94, False, False),
            (0.96, False, True),
            (0.96, True, False),
            (1.1, True, True),  # the oldest one takes too long, whatever the others do
        ):
            patch.setattr("vscsihba.handlers.mirror.leg.time.monotonic", lambda: now + later)  # noqa: B023
            if ends:
                leg.begin_change(lambda _: None).result(PATIENCE)
            assert is_refused(disk) == expected, (later, ends)
    assert not refused(disk)


def test_writes_are_refused_while_a_change_that_was_given_up_may_still_happen(disk: Checked) -> None:
    leg = members_of(disk).legs[1]
    with under_way(disk, leg, lambda: leg.begin_change(hold)) as future:
        assert not is_refused(disk)
        leg.give_up(future)
        assert is_refused(disk)
    assert not refused(disk)


@pytest.mark.parametrize(
    ("verb", "waits"),
    [
        (lambda disk: disk.flush(), True),
        (lambda disk: disk.write(0, [memoryview(b"x")], fua=True), True),
        (lambda disk: disk.write(0, [memoryview(b"x")]), False),
        (lambda disk: disk.write_zeroes(0, 512, may_unmap=True, fua=True), True),
        (lambda disk: disk.write_zeroes(0, 512, may_unmap=True), False),
        (lambda disk: disk.unmap(0, 512), False),
        (lambda disk: handler_of(disk)._members.keep(), True),
    ],
)
def test_what_waits_for_the_storage(disk: Checked, verb: Callable[[Checked], None], *, waits: bool) -> None:
    with mock.patch.object(
        MirrorLeg, "begin_change", autospec=True, side_effect=MirrorLeg.begin_change
    ) as begun:
        verb(disk)
    assert {call.kwargs["waits"] for call in begun.call_args_list} == {waits}


def test_a_read_under_way_keeps_no_write_out(disk: Checked) -> None:
    leg, free = members_of(disk).legs[0], threading.Event()
    future = leg.submit(lambda _: free.wait(PATIENCE))
    assert put(disk, 0, NEW) == len(NEW)
    free.set()
    future.result(PATIENCE)


def test_a_change_that_fails_or_cannot_begin_is_not_counted_any_more(disk: Checked) -> None:
    leg = members_of(disk).legs[0]
    with pytest.raises(OSError, match="division"):
        leg.begin_change(lambda _: 1 // 0).result(PATIENCE)
    with (
        mock.patch.object(leg, "submit", side_effect=OSError(errno.EAGAIN, "no thread")),
        pytest.raises(OSError, match="no thread"),
    ):
        leg.begin_change(lambda _: None)
    wait_until(lambda: not leg._changes)
    assert not refused(disk)


def test_no_write_is_acknowledged_while_a_dropped_leg_is_not_recorded(disk: Checked) -> None:
    members = members_of(disk)
    members.record.is_due = True
    with pytest.raises(BlockingIOError):
        put(disk, 0, NEW)
    assert not members.regions.unsettled
    assert members.regions._ranges._queue == []
    members.record.is_due = False
    assert put(disk, 0, NEW) == len(NEW)


def test_a_leg_that_is_dropped_during_a_write_is_recorded_first(disk: Checked) -> None:
    """The write does not see the leg any more, so it may only be acknowledged after the record."""
    members = members_of(disk)
    legs, real = members.legs, MirrorLeg.write_inline

    def drop(leg: MirrorLeg, write: Mover, views: Views, offset: int, length: int) -> None:
        if leg is legs[0]:
            members.judge(legs, {legs[1]: OSError(errno.EIO, "gone")})
        real(leg, write, views, offset, length)

    with mock.patch.object(MirrorLeg, "write_inline", drop), pytest.raises(BlockingIOError):
        put(disk, 0, NEW)
    with pytest.raises(BlockingIOError):
        put(disk, 0, NEW)
    write(disk, 0, b"recorded")
    assert standings(disk) == "wg"
    wait_until(lambda: not is_refused(disk))  # once the regions have been made equal


def test_nothing_is_written_without_a_leg_or_to_a_closed_one(disk: Checked) -> None:
    legs = members_of(disk).legs
    verbs = disk.inline
    assert verbs.write is not None
    parts = legs[1].check_inline_write(1)
    legs[1].drop("it is over")
    legs[1].wait_until_closed()
    with pytest.raises(BlockingIOError):
        legs[1].write_inline(parts.first, [memoryview(b"x")], 0, 1)
    assert legs[1].write_limit == 0
    for leg in legs:
        leg.standing = Standing.GONE
    with pytest.raises(BlockingIOError):
        verbs.write([memoryview(b"x")], 0, 0)
    legs[0].standing = Standing.WHOLE


def test_a_leg_is_not_closed_during_a_write(disk: Checked) -> None:
    leg = members_of(disk).legs[0]
    parts = leg.check_inline_write(1)
    with leg._inline_use, pytest.raises(BlockingIOError):
        leg.write_inline(parts.first, [memoryview(b"x")], 0, 1)
    ended = threading.Event()

    def forget() -> None:
        leg._forget_inline()
        ended.set()

    def during(_views: Views, _offset: int, _flags: int) -> int:
        threading.Thread(target=forget).start()
        assert not ended.wait(0.1)
        return 1

    leg.write_inline(during, [memoryview(b"x")], 0, 1)
    assert ended.wait(PATIENCE)


# Half done


def fails(error: BaseException | int) -> Mover:
    def move(_views: Views, _offset: int, _flags: int) -> int:
        if isinstance(error, int):
            return error
        raise error

    return move


@pytest.mark.parametrize(
    "error",
    [BlockingIOError(), OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "full"), MemoryError(), 5],
    ids=repr,
)
@pytest.mark.parametrize("number", [0, 1])
def test_legs_that_may_differ_after_a_write_are_made_equal(
    disk: Checked, legs: list[Path], number: int, error: BaseException | int
) -> None:
    members = members_of(disk)
    leg, ask = members.legs[number], mock.Mock()
    with without_copying(), mock.patch.object(leg, "_inline_write", BatchedWrite(fails(error), fails(error))):
        with mock.patch.object(members.regions, "on_unsettled", ask), pytest.raises((OSError, MemoryError)):
            put(disk, REGION - 10, NEW)
        happened = number == 1 or not isinstance(error, BlockingIOError)
        assert members.regions.unsettled == ({0, 1} if happened else set())
        assert ask.call_count == happened
        assert members.regions._ranges._queue == []
        assert stored(legs[:1], REGION - 10) == [NEW if number else mock.ANY]
    handler_of(disk)._sync.ask()
    wait_until(lambda: not members.regions.unsettled)
    first, second = stored(legs[:2], 0, 2 * REGION)
    assert first == second


def test_the_leg_that_has_refused_is_asked_first(disk: Checked, legs: list[Path]) -> None:
    members = members_of(disk)
    asked: list[int] = []

    def asks(leg: MirrorLeg, *, refuse: bool) -> BatchedWrite:
        def move(views: Views, _offset: int, _flags: int) -> int:
            asked.append(leg.number)
            if refuse:
                raise BlockingIOError
            return len(views[0])

        return BatchedWrite(move, move)

    verbs = disk.inline
    assert verbs.write is not None
    one, two = members.legs
    with (
        without_copying(),
        mock.patch.object(one, "_inline_write", asks(one, refuse=False)),
        mock.patch.object(two, "_inline_write", asks(two, refuse=True)),
    ):
        for expected in ([0, 1], [1], [1]):
            with pytest.raises(BlockingIOError):
                verbs.write([memoryview(NEW)], 0, 0)
            assert asked == expected
            asked.clear()
        with mock.patch.object(two, "_inline_write", asks(two, refuse=False)):
            assert verbs.write([memoryview(NEW)], 0, 0) == len(NEW)
            assert asked == [1, 0]


# Batches


class Parts:
    """The parts of an inline write, which note their calls."""

    def __init__(self, name: str, log: list[str]) -> None:
        def part(kind: str) -> Mover:
            def move(views: Views, _offset: int, _flags: int) -> int:
                log.append(f"{name} {kind}")
                return len(views[0])

            return move

        self.parts = BatchedWrite(part("first"), part("rest"), lambda: log.append(f"{name} end"))


def test_a_batch_of_the_mirror_is_one_of_each_leg(disk: Checked) -> None:
    members, log = members_of(disk), list[str]()
    verbs = inline_verbs(members)
    assert verbs.write is not None
    parts = batched(verbs.write)
    views = [memoryview(NEW)]
    one, two = members.legs
    with (
        mock.patch.object(one, "_inline_write", Parts("a", log).parts),
        mock.patch.object(two, "_inline_write", Parts("b", log).parts),
    ):
        for expected in (
            "a first|b first|a rest|b rest|a end|b end",
            "a first|b first|a rest|b rest|a end|b end",
        ):
            assert parts.first(views, 0, 0) == len(NEW)
            assert parts.rest(views, 0, 0) == len(NEW)
            parts.end()
            assert log == expected.split("|")
            log.clear()
        assert verbs.write(views, 0, 0) == len(NEW)
        assert log == ["a first", "b first", "a end", "b end"]
        log.clear()
        # A leg that comes during a batch, as one that was opened anew.
        parts.first(views, 0, 0)
        log.clear()
        with mock.patch.object(two, "_inline_write", Parts("c", log).parts):
            parts.rest(views, 0, 0)
            parts.rest(views, 0, 0)
            parts.end()
        assert log == ["a rest", "c first", "a rest", "c rest", "a end", "b end", "c end"]


def test_a_leg_without_parts_takes_each_write_by_itself(disk: Checked) -> None:
    leg, moved = members_of(disk).legs[0], list[int]()

    def move(views: Views, offset: int, _flags: int) -> int:
        moved.append(offset)
        return len(views[0])

    parts = batched(move)
    assert parts.first is parts.rest is move
    with mock.patch.object(leg, "_inline_write", parts):
        verbs = inline_verbs(members_of(disk))
        assert verbs.write is not None
        mine = batched(verbs.write)
        mine.first([memoryview(NEW)], 0, 0)
        mine.rest([memoryview(NEW)], 5000, 0)
        mine.end()
    assert moved == [0, 5000]


# Forgetting


def test_a_region_is_not_forgotten_while_an_inline_write_of_it_is_under_way(disk: Checked) -> None:
    members, idle = members_of(disk), list[tuple[int, ...]]()
    leg = members.legs[1]

    def during(views: Views, _offset: int, _flags: int) -> int:
        with mock.patch("vscsihba.handlers.mirror.state._PERIOD", 0.0):
            for _ in range(4):
                idle.append(members.idle_regions().numbers)
        return len(views[0])

    with (
        mock.patch.object(handler_of(disk)._sync, "_forget"),
        mock.patch.object(leg, "_inline_write", BatchedWrite(during, during)),
    ):
        put(disk, 0, NEW)
    assert (1,) in idle
    assert not any(0 in numbers for numbers in idle)


# Reading


def get(disk: Checked, offset: int, *lengths: int) -> bytes:
    verbs, rooms = disk.inline, [memoryview(bytearray(length)) for length in lengths]
    assert verbs.read is not None
    try:
        assert verbs.read(rooms, offset, verbs.read_flags) == sum(lengths)
    except BlockingIOError:
        pytest.skip("the file system has no RWF_NOWAIT")
    return b"".join(rooms)


def test_an_inline_read_comes_from_the_leg_whose_turn_it_is(disk: Checked, legs: list[Path]) -> None:
    write(disk, 2 * REGION, b"same")
    content(disk)
    legs[1].write_bytes(b"2" * SIZE + legs[1].read_bytes()[SIZE:])  # a difference that nothing knows of
    assert get(disk, 0, 10) == b"o" * 10
    with mock.patch("vscsihba.handlers.mirror.reading._SPREAD", REGION):
        assert get(disk, 3 * REGION, 10) == b"2" * 10
        assert get(disk, 4 * REGION - 4, 3, 5) == b"2" * 8
        assert get(disk, 4 * REGION, 10) == b"o" * 10
        with without_copying():
            members_of(disk).regions.unsettled.add(3)
            assert get(disk, 3 * REGION, 10) == b"o" * 10
            assert get(disk, 3 * REGION - 4, 3, 1) == b"o" * 4
            # Only the length says that it reaches into that region.
            with mock.patch("vscsihba.handlers.mirror.reading._SPREAD", REGION // 2):
                assert get(disk, 3 * REGION - 4, 2, 2) == b"2" * 4
                assert get(disk, 3 * REGION - 4, 2, 3) == b"o" * 5
            members_of(disk).regions.unsettled.clear()
        members_of(disk).legs[0].standing = Standing.BEHIND
        assert get(disk, 0, 10) == b"2" * 10
        members_of(disk).legs[0].standing = Standing.WHOLE


def test_nothing_is_read_inline_where_no_leg_has_all_the_data(disk: Checked) -> None:
    legs, verbs = members_of(disk).legs, disk.inline
    assert verbs.read is not None
    for leg in legs:
        leg.standing = Standing.BEHIND
    with pytest.raises(BlockingIOError):
        verbs.read([memoryview(bytearray(1))], 0, verbs.read_flags)
    for leg in legs:
        leg.standing = Standing.WHOLE


def busy(leg: MirrorLeg, count: int) -> Callable[[], None]:
    """Keep some requests of a leg under way; return a function that ends them."""
    free = threading.Event()
    futures = [leg.submit(lambda _: free.wait(PATIENCE)) for _ in range(count)]

    def end() -> None:
        free.set()
        for future in futures:
            future.result(PATIENCE)
        wait_until(lambda: leg.under_way == 0)

    return end


@pytest.mark.parametrize(
    ("under_way", "expected"),
    [((0, 0), 0), ((2, 0), 0), ((3, 0), 1), ((3, 1), 0), ((4, 1), 1), ((0, 9), 0), ((9, 9), 0)],
)
def test_a_leg_has_its_turn_unless_it_has_more_under_way_than_another(
    disk: Checked, under_way: tuple[int, int], expected: int
) -> None:
    members = members_of(disk)
    ends = [busy(leg, count) for leg, count in zip(members.legs, under_way, strict=True)]
    assert [leg.under_way for leg in members.legs] == list(under_way)
    found = members.readers(0, 512)
    assert [leg.number for leg in found] == [expected, 1 - expected]
    for end in ends:
        end()


def test_legs_that_may_differ_are_read_in_their_order(disk: Checked) -> None:
    members = members_of(disk)
    with without_copying():
        members.regions.unsettled.add(3)
        end = busy(members.legs[0], 9)
        for offset, length, expected in (
            (3 * REGION - 1, 1, 1),
            (3 * REGION - 1, 2, 0),
            (3 * REGION, 1, 0),
            (4 * REGION - 1, 1, 0),
            (4 * REGION, 1, 1),
        ):
            assert members.readers(offset, length)[0].number == expected
        end()
        members.regions.unsettled.clear()
