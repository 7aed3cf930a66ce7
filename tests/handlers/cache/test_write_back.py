"""Write-back, and the requests that are under way below: what holds which lock, and what is stale."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from tests.handlers.cache.test_cache import Below, on
from tests.handlers.cache.test_lines import SHAPE, content
from vscsihba.handlers.cache.lines import Line, Lines, dirty_lines
from vscsihba.handlers.cache.traffic import Traffic
from vscsihba.handlers.cache.write_back import WriteBack
from vscsihba.handlers.shared.token_lock import TokenLock


class Guarded(Lines):
    """Lines that are used with the lock held only."""

    lock: TokenLock

    @property
    def dirty(self) -> OrderedDict[int, Line]:  # type: ignore[override]
        assert self.lock.locked()
        found: OrderedDict[int, Line] = self.__dict__["dirty"]
        return found

    def within(self, first: int, last: int) -> list[tuple[Line, int]]:
        assert self.lock.locked()
        return super().within(first, last)

    def read(self, line: Line, within: int, views: Any) -> None:
        assert self.lock.locked()
        super().read(line, within, views)

    def mark_clean(self, line: Line, blocks: int) -> bool:
        assert self.lock.locked()
        return super().mark_clean(line, blocks)


@pytest.mark.parametrize(
    "act",
    [
        lambda back: back.flush(),
        lambda back: back.force(0, 4),
        lambda back: back.make_room(0),
        lambda back: back.write(back.dirty(0, 4)),
    ],
    ids=["flush", "force", "make_room", "dirty"],
)
def test_lines_are_used_with_the_lock_held_and_the_layer_below_without(
    act: Callable[[WriteBack], None],
) -> None:
    below = Below()
    handler = on(below, mode="write-back")
    handler.open()
    handler.write(0, [memoryview(b"x" * 4096)])
    lines, lock = handler._lines, handler._lock
    lines.__class__ = Guarded
    lines.lock = lock  # type: ignore[attr-defined]
    real = below.write

    def unlocked(*arguments: Any, **named: Any) -> None:
        assert not lock.locked()
        real(*arguments, **named)

    below.write = unlocked  # type: ignore[method-assign]
    act(handler._write_back)
    assert below.asked[0][:3] == ("write", 0, 4096)
    lines.__class__ = Lines
    assert not lines.dirty
    handler.close()


def test_room_is_made_unless_another_line_can_be_evicted() -> None:
    below, lock = Below(), TokenLock()
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    back = WriteBack(lines, lock, below)
    for number in (0, 1, 2):
        assert lines.write(number, 0b1111, 0, content(1, 2, 3, 4))
    assert lines.hold(3, 0b1, content(1))
    assert back.make_room(5)
    assert below.asked == []
    assert back.make_room(3)
    assert below.asked == [("write", 0, 49152)]
    assert not lines.dirty
    lines.close()


# Traffic


@pytest.fixture
def traffic() -> Traffic:
    return Traffic(TokenLock())


def test_a_fetch_is_stale_if_its_blocks_are_changed(traffic: Traffic) -> None:
    fetch, other = traffic.begin_fetch(2, 4), traffic.begin_fetch(6, 8)
    assert not fetch.stale
    traffic.spoil(0, 2)
    traffic.spoil(4, 6)
    assert not fetch.stale
    assert not other.stale
    traffic.spoil(3, 5)
    traffic.spoil(0, 1)
    assert fetch.stale
    assert not other.stale
    traffic.end_fetch(fetch)
    fetch.stale = False
    traffic.spoil(0, 10)
    assert not fetch.stale
    assert other.stale


def test_what_begins_during_a_change_of_its_blocks_is_stale(traffic: Traffic) -> None:
    fetch = traffic.begin_fetch(0, 3)
    change = traffic.begin_change(2, 4)
    assert fetch.stale
    assert not change.stale
    assert traffic.begin_fetch(3, 9).stale
    assert not traffic.begin_fetch(4, 9).stale
    assert not traffic.begin_change(4, 6).stale
    assert not change.stale
    other = traffic.begin_change(0, 3)
    assert other.stale
    assert change.stale
    assert not traffic.begin_change(9, 10).stale
    assert change.stale
    with traffic._ended:
        traffic.end_change(change)
        traffic.end_change(other)
    assert not traffic.is_changing(0, 4)
    assert traffic.is_changing(5, 6)


def test_a_wait_ends_with_the_last_change_of_its_blocks(traffic: Traffic) -> None:
    done: list[str] = []

    def wait() -> None:
        with traffic._ended:
            traffic.wait(0, 2)
            done.append("waited")

    with traffic._ended:
        changes = [traffic.begin_change(0, 1), traffic.begin_change(1, 2), traffic.begin_change(2, 3)]
    thread = threading.Thread(target=wait)
    thread.start()
    for change in changes[:2]:
        thread.join(0.02)
        assert done == []
        with traffic._ended:
            traffic.end_change(change)
    thread.join(10)
    assert done == ["waited"]
