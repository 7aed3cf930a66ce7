"""The legs of a mirror together: which of them count, which are dropped, and what is recorded of that."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from tests.handlers.mirror.test_mirror import CONTENT, SIZE, handler_of, standings, whole
from tests.handlers.mirror.test_mirror_faults import plain_mirror, without_copying
from tests.handlers.mirror.test_mirror_marks import (
    make_version_1,
    mark_of,
    mark_of_used,
    why,
    without_growing,
)
from vscsihba.errors import UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.mark import length_with_mark, write_mark
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

A = CONTENT[:SIZE]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Checked]:
    """An open mirror of two legs that are equal; nothing is copied, and no leg is tried, by its thread."""
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(A)
    make_version_1(tmp_path, whole=(True, True), dirty=bytes(5))
    with without_copying(), build(plain_mirror(tmp_path)) as disk:
        assert whole(disk)
        yield disk


def members_of(disk: Checked) -> Members:
    return handler_of(disk)._members


def error() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


def drop(disk: Checked, number: int) -> MirrorLeg:
    """Drop a leg, and record that."""
    members = members_of(disk)
    leg = members.legs[number]
    members.judge(members.legs, {leg: error()})
    members.keep()
    leg.wait_until_closed()
    return leg


def states(disk: Checked) -> list[str]:
    """The states of the legs, as the metadata have them that count."""
    members = members_of(disk)
    entries = [members.metadata.entry(leg.uuid) for leg in members.legs]
    return [entry.state for entry in entries if entry]


def test_a_drop_that_a_read_has_caused_is_recorded(made: Checked, tmp_path: Path) -> None:
    real = FileHandler.read

    def failing(handler: FileHandler, *words: Any) -> None:
        if handler.options.path.endswith("a.img"):
            raise error()
        real(handler, *words)

    with mock.patch.object(FileHandler, "read", failing):
        assert read(made, 0, 10) == A[:10]
        assert standings(made) == "gw"
    assert states(made) == ["out", "in"]
    assert not members_of(made).record.is_due
    mark = mark_of_used(tmp_path / "b.img")
    assert mark is not None
    assert mark.members == {members_of(made).legs[1].uuid}


def test_a_read_needs_no_record_of_a_drop_and_a_write_does(made: Checked) -> None:
    members = members_of(made)
    with (
        mock.patch.object(members.record, "check_majority", side_effect=error()),
        mock.patch.object(members.legs[0], "submit", side_effect=error()),
    ):
        assert read(made, 0, 10) == A[:10]
        with pytest.raises(OSError, match="error"):
            write(made, 0, b"x")
    write(made, 0, b"y")
    assert read(made, 0, 2) == b"y" + A[1:2]


def test_a_leg_that_is_behind_is_dropped_with_its_mark_even_if_the_only_other_one_fails(
    made: Checked,
) -> None:
    members = members_of(made)
    one, other = members.legs
    other.standing = Standing.BEHIND
    failures = [{one: error(), other: error()}, {one: error()}]
    with (
        mock.patch.object(members.record, "write", side_effect=failures),
        pytest.raises(OSError, match="error"),
    ):
        members.keep()
    assert standings(made) == "wg"
    assert members.record.is_due


def test_a_leg_that_cannot_write_that_it_has_all_the_data_is_dropped(made: Checked) -> None:
    members = members_of(made)
    other = members.legs[1]
    other.standing = Standing.BEHIND
    with (
        mock.patch.object(members.record, "write", return_value={other: error()}),
        pytest.raises(OSError, match="error"),
    ):
        members.promote([other])
    assert standings(made) == "wg"
    assert members.record.is_due


def test_legs_count_when_that_is_recorded_and_not_before(made: Checked, tmp_path: Path) -> None:
    members = members_of(made)
    leg = drop(made, 1)
    assert states(made) == ["in", "out"]
    members.promote([leg])
    assert standings(made) == "wg"
    assert members.admit(leg)
    assert standings(made) == "wb"
    assert states(made) == ["in", "behind"]
    with (
        mock.patch.object(members.record, "check_majority", side_effect=error()),
        pytest.raises(OSError, match="error"),
    ):
        members.promote([leg])
    assert standings(made) == "wb"
    members.promote([leg])
    assert standings(made) == "ww"
    assert states(made) == ["in", "in"]
    for name in "ab":
        mark = mark_of_used(tmp_path / f"{name}.img")
        assert mark is not None
        assert len(mark.members) == 2


def test_each_drop_of_a_leg_in_use_is_told_once(made: Checked) -> None:
    members = members_of(made)
    with mock.patch.object(members, "on_drop") as told:
        drop(made, 1)
        assert told.call_count == 1
        members.judge(members.legs, {members.legs[1]: error()})  # it is gone already
    assert told.call_count == 1


def test_nothing_is_written_when_no_leg_is_ready(made: Checked) -> None:
    members = members_of(made)
    with mock.patch.object(members.record, "write", return_value={}) as writes:
        members.promote(members.legs)
        assert writes.call_count == 0
        members.record.is_due = True
        members.promote([])
        assert writes.call_count == 1


def test_a_leg_with_a_mark_that_is_newer_than_the_mirror_does_not_come_back(
    made: Checked, tmp_path: Path
) -> None:
    leg = drop(made, 1)
    mark = mark_of(tmp_path / "b.img")
    assert mark is not None
    with build(str(tmp_path / "b.img")) as stack:
        event = members_of(made).metadata.event + 10
        write_mark(stack, msgspec.structs.replace(mark, event=event, session="another"))
    assert not members_of(made).admit(leg)
    assert "its mark is newer than the mirror" in why(made, 1)
    assert standings(made) == "wg"


def test_a_leg_that_is_the_only_one_at_last_is_not_removed(made: Checked) -> None:
    """The other one is dropped after the removal was asked for, and before it begins."""
    members, before = members_of(made), members_of(made).state.metadata

    @contextmanager
    def dropping() -> Iterator[None]:
        members.judge(members.legs, {members.legs[0]: error()})
        yield

    with (
        mock.patch.object(members, "_admitting", dropping()),
        pytest.raises(UsageError, match=r"leg 1 .* is the only one that has all the data"),
    ):
        handler_of(made).remove_leg(1)
    assert members.state.metadata == before
    assert standings(made) == "gw"


def test_a_leg_comes_back_only_when_that_can_be_recorded(made: Checked) -> None:
    members, leg = members_of(made), drop(made, 1)
    with mock.patch.object(members.record, "check_majority", side_effect=error()):
        assert not members.admit(leg)
    assert standings(made) == "wg"
    assert states(made) == ["in", "out"]
    assert members.admit(leg), why(made, 1)
    assert states(made) == ["in", "behind"]


def test_a_new_leg_needs_room_for_a_mark(made: Checked, tmp_path: Path) -> None:
    (tmp_path / "c.img").write_bytes(bytes(SIZE))
    message = f"it has {SIZE} bytes, and {length_with_mark(SIZE)} are needed: {SIZE} of the disk"
    with without_growing(), pytest.raises(UsageError, match=message):
        handler_of(made).add_leg(build(str(tmp_path / "c.img")))
    assert standings(made) == "ww"
    assert (tmp_path / "c.img").read_bytes() == bytes(SIZE)


@pytest.mark.parametrize(
    "verb",
    [
        Members.keep,
        lambda members: members.shrink(SIZE - 4096),
        lambda members: members.enlarge(SIZE, SIZE + 4096),
        lambda members: members.promote(members.legs),
        lambda members: members.judge(members.legs, {members.legs[1]: error()}),
        lambda members: members.remove(members.legs[1]),
        lambda members: members.add(mock.Mock(standing=Standing.BEHIND)),
    ],
)
def test_marks_are_written_and_legs_change_one_after_the_other(
    made: Checked, verb: Callable[[Members], object]
) -> None:
    members, ended = members_of(made), threading.Event()
    legs = list(members.legs)

    def run() -> None:
        verb(members)
        ended.set()

    thread = threading.Thread(target=run)
    sizes = [leg.submit(lambda disk: disk.geometry.size).result(None) for leg in members.legs]
    with members._lock, mock.patch.object(members.record, "write", return_value={}) as writes:
        thread.start()
        assert not ended.wait(0.1)
        assert standings(made) == "ww"
        assert writes.call_count == 0
        assert members.legs == legs
        assert [leg.submit(lambda disk: disk.geometry.size).result(None) for leg in members.legs] == sizes
    thread.join(30)
    assert ended.is_set()
    members.legs = legs


def test_a_leg_without_room_for_a_mark_is_removed_and_keeps_its_data(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(A)
    make_version_1(tmp_path, whole=(True, True), dirty=bytes(5))
    with without_growing(), build(plain_mirror(tmp_path)) as disk:
        handler_of(disk).remove_leg(1)
        assert standings(disk) == "w"
    assert (tmp_path / "b.img").read_bytes() == A


def test_a_request_fails_with_the_error_of_a_leg_if_all_of_them_fail(made: Checked) -> None:
    members = members_of(made)

    def failing(_disk: object) -> None:
        raise error()

    with pytest.raises(OSError, match="error"):
        members.everywhere(failing)
    with pytest.raises(OSError, match="error"):
        members.from_one(members.legs, failing)
    with pytest.raises(OSError, match="no leg left"):
        members.from_one([], failing)
    assert standings(made) == "ww"
    members.everywhere(failing, members.legs[1:], sure=members.legs[0])
    assert standings(made) == "wg"
    assert states(made) == ["in", "out"]
    members.everywhere(failing, [])


def test_a_mark_is_erased_only_of_a_leg_that_is_removed(made: Checked, tmp_path: Path) -> None:
    handler_of(made).remove_leg(1)
    assert mark_of_used(tmp_path / "b.img") is None
    assert (tmp_path / "b.img").read_bytes()[:SIZE] == A
    assert mark_of_used(tmp_path / "a.img") is not None
    assert not members_of(made).record.is_due


def test_regions_are_forgotten_only_while_all_legs_have_all_the_data(made: Checked) -> None:
    members = members_of(made)
    write(made, 0, b"x")
    with mock.patch("vscsihba.handlers.mirror.state._PERIOD", 0.0):
        for _ in range(2):
            members.idle_regions()
        idle = members.idle_regions()
        assert idle.numbers == (0,)
        leg = drop(made, 1)
        assert members.idle_regions().numbers == ()
        members.forget(idle)
        assert members.state.dirty() == [0]
        members.admit(leg)
        members.promote([leg])
        members.forget(idle)
    assert members.state.dirty() == []
