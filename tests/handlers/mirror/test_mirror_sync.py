"""The resync of a mirror: what is copied and in which order, and when the thread tries again."""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import pytest

from tests.polling import wait_until
from vscsihba.block import Views
from vscsihba.handlers.mirror import sync as mirror_sync
from vscsihba.handlers.mirror.leg import Standing
from vscsihba.handlers.mirror.metadata import Metadata
from vscsihba.handlers.mirror.state import IdleRegions
from vscsihba.handlers.mirror.sync import ResyncProgress, Synchroniser

REGION = 4096
SIZE = 3 * REGION + 512
DATA = bytes(REGION) + b"x" * REGION + b"y" * REGION + b"z" * 512
NEW, OLD = DATA, b"o" * SIZE
SOON = 20


class Leg:
    """A leg, and the memory that is its medium."""

    def __init__(self, name: str, standing: Standing, data: bytes) -> None:
        self.name = name
        self.standing = standing
        self.data = bytearray(data)
        self.log: list[str] = []

    def __str__(self) -> str:
        return self.name

    def read(self, offset: int, views: Views) -> None:
        for view in views:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, views: Views) -> None:
        self.log.append(f"{self.name} write {offset // REGION}")
        for view in views:
            self.data[offset : offset + len(view)] = view
            offset += len(view)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool) -> None:
        assert may_unmap  # holes stay holes
        self.log.append(f"{self.name} zeroes {offset // REGION}")
        self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        self.log.append(f"{self.name} flush")


class Members:
    """The legs of a mirror, in memory; a log of what is asked of them."""

    metadata = Metadata(uuid="m", event=1, session="s", size=SIZE, region_size=REGION, legs=())

    def __init__(self, **legs: tuple[Standing, bytes]) -> None:
        self.legs = [Leg(name, *leg) for name, leg in legs.items()]
        self.log: list[str] = []
        for leg in self.legs:
            leg.log = self.log
        self.regions = self
        self.unsettled: set[int] = set()
        self.dirty: list[int] = []
        self.idle = IdleRegions()
        self.forgotten: list[IdleRegions] = []
        self.state = mock.Mock(dirty=lambda: self.dirty)
        self.record = mock.Mock(is_due=False)
        self.held: int | None = None
        self.on_drop: Callable[[], object] = lambda: None
        self.on_unsettled: Callable[[], object] = lambda: None

    def until_idle(self) -> float | None:
        return 3.5 if self.idle.numbers else None

    def idle_regions(self) -> IdleRegions:
        return self.idle

    def forget(self, idle: IdleRegions) -> None:
        self.log.append("forget")
        self.forgotten.append(idle)
        self.idle = IdleRegions()

    def standing(self, *wanted: Standing) -> list[Leg]:
        return [leg for leg in self.legs if leg.standing in wanted]

    @contextmanager
    def alone_in(self, region: int) -> Iterator[None]:
        self.held = region
        yield
        self.held = None

    def check_answers(self) -> None:
        self.log.append(f"check {self.held}")

    def from_one(self, legs: list[Leg], verb: Callable[[Any], bytes]) -> bytes:
        assert self.held is not None
        self.log.append(f"{legs[0]} read {self.held}")
        return verb(legs[0])

    def everywhere(
        self,
        verb: Callable[[Any], object],
        legs: list[Leg] | None = None,
        *,
        sure: Leg | None = None,
        waits: bool = False,
    ) -> None:
        assert waits is (sure is None)
        assert (legs is None) is (sure is None)
        assert sure is None or sure.standing is Standing.WHOLE
        for leg in self.standing(Standing.WHOLE, Standing.BEHIND) if legs is None else legs:
            assert leg is not sure
            verb(leg)

    def promote(self, legs: list[Leg]) -> None:
        self.log.append(f"promote {' '.join(map(str, legs))}".strip())
        for leg in legs:
            leg.standing = Standing.WHOLE

    def keep(self) -> None:
        self.log.append("keep")
        self.record.is_due = False

    def admit(self, leg: Leg) -> bool:
        self.log.append(f"admit {leg}")
        leg.standing = Standing.BEHIND
        return True


def synchroniser(members: Members, retry: float | None = None) -> Synchroniser:
    return Synchroniser(cast("Any", members), retry)


def pauses(sync: Synchroniser, count: int) -> list[float | None]:
    """Run the loop of the thread without waiting, and return how long it would have waited each time."""
    found: list[float | None] = []

    def wait(timeout: float | None = None) -> bool:
        found.append(timeout)
        sync._stopping = len(found) == count
        return True

    with mock.patch.object(sync._wake, "wait", wait):
        sync._run()
    return found


# Copying


def test_dirty_regions_are_copied_to_a_leg_that_is_behind_and_flushed_before_it_counts() -> None:
    members = Members(a=(Standing.GONE, OLD), b=(Standing.WHOLE, NEW), c=(Standing.BEHIND, OLD))
    members.dirty = [0, 1, 3]
    members.unsettled = {0, 3}
    assert pauses(synchroniser(members), 1) == [None]
    assert members.log == [
        *("check 0", "b read 0", "c zeroes 0"),
        *("check 1", "b read 1", "c write 1"),
        *("check 3", "b read 3", "c write 3"),
        *("b flush", "c flush", "promote c"),
    ]
    assert members.legs[2].data == NEW[: 2 * REGION] + OLD[2 * REGION : 3 * REGION] + NEW[3 * REGION :]
    assert members.legs[0].data == OLD
    assert members.unsettled == set()


def test_legs_that_have_all_the_data_are_made_equal_where_they_may_differ() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.WHOLE, OLD), c=(Standing.WHOLE, OLD))
    members.dirty = [0, 1, 2, 3]
    members.unsettled = {2, 1}
    pauses(synchroniser(members), 1)
    assert members.log == [
        *("check 1", "a read 1", "b write 1", "c write 1"),
        *("check 2", "a read 2", "b write 2", "c write 2"),
        *("a flush", "b flush", "c flush", "promote"),
    ]
    assert members.unsettled == set()


def test_nothing_is_asked_of_equal_legs() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.WHOLE, NEW))
    members.dirty = [1]
    assert pauses(synchroniser(members), 1) == [None]
    assert members.log == []


def test_regions_behind_the_end_of_a_disk_that_was_made_smaller_are_not_copied() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD))
    members.dirty, members.unsettled = [3, 4], {4}
    pauses(synchroniser(members), 1)
    assert members.log[:4] == ["check 3", "a read 3", "b write 3", "check 4"]
    assert members.log[4] == "a flush"
    assert members.unsettled == set()


def test_a_region_is_not_written_while_an_earlier_write_may_still_land() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD))
    members.dirty, members.unsettled = [1], {1}
    with mock.patch.object(members, "check_answers", side_effect=OSError(errno.EIO, "not answered")):
        pauses(synchroniser(members), 1)
    assert members.log == []
    assert members.legs[1].standing is Standing.BEHIND
    assert members.unsettled == {1}


def test_progress_counts_regions_and_ends_with_the_copying() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD))
    members.dirty = [0, 1, 2]
    sync = synchroniser(members)
    seen: list[ResyncProgress | None] = []
    fail: list[bool] = []

    def check() -> None:
        seen.append(sync.progress)
        if fail and len(seen) == 2:
            raise OSError(errno.EIO, "not answered")

    with mock.patch.object(members, "check_answers", check):
        pauses(sync, 1)
        assert seen == [ResyncProgress(0, 3), ResyncProgress(1, 3), ResyncProgress(2, 3)]
        assert sync.progress is None
        members.legs[1].standing = Standing.BEHIND
        seen.clear()
        fail.append(True)
        sync._stopping = False
        pauses(sync, 1)
    assert len(seen) == 2
    assert sync.progress is None


def test_copying_ends_after_the_region_during_which_that_was_asked() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD))
    members.dirty = [0, 1, 2]
    sync = synchroniser(members)

    def stop_in_1() -> None:
        sync._stopping = members.held == 1

    with (
        mock.patch.object(members, "check_answers", stop_in_1),
        mock.patch.object(sync._wake, "wait") as wait,
    ):
        sync.start()
        sync._thread.join(SOON)
    assert wait.call_count == 0  # nothing would end that
    assert members.log == ["a read 0", "b zeroes 0", "a read 1", "b write 1"]
    assert members.legs[1].standing is Standing.BEHIND


# Trying again


def test_a_leg_that_stays_away_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_sync, "_LONGEST_PAUSE", 3.0)
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.GONE, OLD))
    with mock.patch.object(members, "admit", return_value=False) as admit:
        assert pauses(synchroniser(members, 0.5), 6) == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert admit.call_count == 5


def test_a_leg_that_is_gone_is_not_tried_unless_that_is_wanted() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.GONE, OLD))
    assert pauses(synchroniser(members), 1) == [None]
    assert pauses(synchroniser(members, 0.0), 1) == [None]
    assert members.log == []


@pytest.mark.parametrize(("retry", "first"), [(None, 10.0), (0.0, 10.0), (0.5, 0.5)])
def test_copying_that_fails_is_tried_again_later_and_soon_after_it_was_asked_for(
    retry: float | None, first: float
) -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD))
    sync = synchroniser(members, retry)
    with mock.patch.object(members, "everywhere", side_effect=OSError(errno.EIO, "broken")):
        assert pauses(sync, 3) == [first, 2 * first, 4 * first]
        sync.ask()
        sync._asked = sync._stopping = False
        assert pauses(sync, 2) == [first, 2 * first]


def test_a_leg_that_comes_back_is_copied_to_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.GONE, OLD), c=(Standing.GONE, OLD))
    members.dirty = [0, 1, 2, 3]
    real = members.admit
    with mock.patch.object(members, "admit", lambda leg: leg.name == "b" and real(leg)):
        assert pauses(synchroniser(members, 0.5), 2) == [0.5, 1.0]
    assert members.legs[1].data == NEW
    assert members.log[0] == "admit b"
    assert members.log[-1] == "promote b"
    assert "b is back" in caplog.text
    assert "c is back" not in caplog.text


@pytest.mark.parametrize("due", [False, True])
def test_a_drop_that_could_not_be_recorded_is_recorded_before_a_leg_comes_back(due: bool) -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.GONE, OLD))
    members.record.is_due = due
    pauses(synchroniser(members, 0.5), 2)
    assert members.log[: 1 + due] == [*(["keep"] if due else []), "admit b"]


def test_the_thread_looks_again_when_it_is_asked() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.GONE, OLD))
    members.dirty = [1]
    sync = synchroniser(members)
    sync.start()
    assert sync._thread.daemon  # a process that ends without closing the disk does not wait for it
    wait_until(lambda: sync._wake._waiters, limit=SOON)  # type: ignore[attr-defined]
    assert members.log == []
    sync.ask()
    wait_until(lambda: members.legs[1].standing is Standing.WHOLE, limit=SOON)
    sync.stop()
    assert not sync._thread.is_alive()
    assert members.log[0] == "admit b"


def test_a_leg_that_is_dropped_while_nothing_was_to_do_is_tried_after_a_pause() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.WHOLE, NEW))
    sync, began = synchroniser(members, 0.2), []
    real = members.admit

    def admit(leg: Leg) -> bool:
        began.append(time.monotonic())
        return len(began) == 3 and real(leg)

    with mock.patch.object(members, "admit", admit):
        sync.start()
        wait_until(lambda: sync._wake._waiters, limit=SOON)  # type: ignore[attr-defined]
        members.legs[1].standing = Standing.GONE
        dropped = time.monotonic()
        members.on_drop()
        wait_until(lambda: members.legs[1].standing is Standing.WHOLE, limit=SOON)
    sync.stop()
    assert began[0] - dropped >= 0.2
    assert [
        later - earlier >= pause for earlier, later, pause in zip(began, began[1:], (0.4, 0.8), strict=False)
    ] == [True, True]


def test_the_thread_looks_again_when_it_was_asked_while_it_was_copying() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD), c=(Standing.GONE, OLD))
    sync = synchroniser(members)
    real = members.promote

    def promote(legs: list[Leg]) -> None:
        real(legs)
        if members.legs[2].standing is Standing.GONE:
            sync.ask()

    with mock.patch.object(members, "promote", promote):
        assert pauses(sync, 1) == [None]  # not before all legs are back
    assert members.log[-1] == "promote c"


# Forgetting


def test_regions_that_were_not_written_for_a_while_are_forgotten_after_a_flush() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.WHOLE, NEW))
    idle = members.idle = IdleRegions((1, 2), 7)
    assert pauses(synchroniser(members), 2) == [None, None]
    assert members.log == ["a flush", "b flush", "forget"]
    assert members.forgotten == [idle]


def test_nothing_is_forgotten_and_the_thread_looks_again_where_a_flush_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.WHOLE, NEW))
    members.idle = IdleRegions((1, 2), 7)
    with mock.patch.object(members, "everywhere", side_effect=OSError(errno.EIO, "lost")):
        assert pauses(synchroniser(members), 2) == [3.5, 3.5]
    assert members.forgotten == []
    assert "flushing them to forget regions failed" in caplog.text


def test_the_thread_looks_when_a_region_becomes_dirty_or_legs_may_differ() -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.WHOLE, NEW))
    sync = synchroniser(members)
    with mock.patch.object(sync._wake, "notify") as notify:
        members.state.on_mark()
        assert not sync._asked
        members.on_unsettled()
        assert sync._asked
    assert notify.call_count == 2


def test_any_failure_is_told_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    members = Members(a=(Standing.WHOLE, NEW), b=(Standing.BEHIND, OLD), c=(Standing.GONE, OLD))
    with (
        mock.patch.object(members, "everywhere", side_effect=MemoryError),
        mock.patch.object(members, "admit", side_effect=ZeroDivisionError("bad handler")),
    ):
        assert pauses(synchroniser(members, 0.5), 3) == [0.5, 1.0, 2.0]
    assert caplog.text.count("making the legs equal failed: [Errno 12] MemoryError") == 3
    assert caplog.text.count("ZeroDivisionError: bad handler") == 2
