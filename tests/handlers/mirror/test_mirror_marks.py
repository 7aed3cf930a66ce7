"""The marks of a mirror's legs: what happens to media that have one, have another one, or have none."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from tests.handlers.mirror.test_mirror import (
    CONTENT,
    PATIENCE,
    SIZE,
    content,
    handler_of,
    mirror,
    standings,
    whole,
    whole_again,
)
from tests.handlers.mirror.test_mirror_faults import plain_mirror, without_copying
from tests.polling import wait_until
from vscsihba.block import Extent, ExtentStatus
from vscsihba.config.stacks import canonical
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.mirror import metadata as mirror_metadata
from vscsihba.handlers.mirror import state as mirror_state
from vscsihba.handlers.mirror.leg import Standing
from vscsihba.handlers.mirror.mark import MARK, enlarge, is_empty, length_with_mark, read_mark, write_mark
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata
from vscsihba.handlers.mirror.sync import Synchroniser
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.shared import sectors, superblock
from vscsihba.handlers.shared.superblock import Superblock
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import KIB, read, write

A = CONTENT[:SIZE]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A mirror of two legs that are equal, closed."""
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "b.img").write_bytes(bytes(SIZE))
    with build(plain_mirror(tmp_path)) as made:
        wait_until(lambda: whole(made))
    return tmp_path


def mark_of(path: Path) -> Metadata | None:
    with build({"handler": "file", "path": str(path), "read_only": True}) as leg:
        return read_mark(leg).metadata


def mark_of_used(path: Path) -> Metadata | None:
    """The mark of a leg that is perhaps open."""
    shutil.copy(path, path.with_suffix(".copy"))
    return mark_of(path.with_suffix(".copy"))


def answered(disk: Any) -> bool:
    """Return whether every change that was given up has ended."""
    with suppress(OSError):
        handler_of(disk)._members.check_answers()
        return True
    return False


def why(disk: Any, number: int) -> str:
    return handler_of(disk).status()[number].error


# Where a mark is


@pytest.mark.parametrize("size", [4096, 4608, 64 * KIB])
def test_a_mark_lies_behind_the_data_at_the_end(tmp_path: Path, size: int) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(A[:size] if name == "a" else bytes(size))
    with build(plain_mirror(tmp_path)) as made:
        assert made.geometry.size == size
        wait_until(lambda: whole(made))
    for name in "ab":
        found = (tmp_path / f"{name}.img").read_bytes()
        assert len(found) == length_with_mark(size)
        assert found[:size] == A[:size]
        assert found[-MARK:].startswith(b"VSCSILEG")


def test_a_mark_outlives_an_enlarged_leg(disk: Path) -> None:
    os.truncate(disk / "b.img", 2 * SIZE)
    with build(plain_mirror(disk)) as made:
        assert whole(made)
    assert (disk / "b.img").read_bytes()[2 * SIZE - MARK :].startswith(b"VSCSILEG")


def test_bytes_of_the_disk_are_never_a_mark(disk: Path) -> None:
    """A guest cannot write one: what lies before the size that a mark states is no mark."""
    forged = (disk / "a.img").read_bytes()[-MARK:]
    (disk / "c.img").write_bytes(bytes(SIZE - MARK) + forged)
    assert mark_of(disk / "c.img") is None


def test_a_torn_mark_leaves_the_one_before(disk: Path) -> None:
    before = mark_of(disk / "b.img")
    assert before is not None
    with build(str(disk / "b.img")) as leg:
        write_mark(leg, msgspec.structs.replace(before, event=before.event + 1))
    found = (disk / "b.img").read_bytes()
    slots = [found[-MARK : -MARK + 4096], found[-4096:]]
    newest = max(range(2), key=lambda number: superblock.decode(slots[number], b"VSCSILEG") or (0, b""))
    with (disk / "b.img").open("r+b") as file:
        file.seek(len(found) - MARK + newest * 4096 + 200)
        file.write(b"torn")
    assert mark_of(disk / "b.img") == before


def test_a_nested_mirror_has_marks_of_both(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.img").write_bytes(A if name == "a" else bytes(SIZE))
    document = {
        "handler": "mirror",
        "path": str(tmp_path / "outer.state"),
        "create": True,
        "legs": [plain_mirror(tmp_path), str(tmp_path / "c.img")],
    }
    for _ in range(2):
        with build(document) as made:
            wait_until(lambda: whole(made))
            assert read(made, 0, SIZE) == A
    assert content(tmp_path, "b") == content(tmp_path, "c") == A


# Room for a mark


def without_growing() -> Any:
    def refuse(_handler: FileHandler, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "it has a fixed size")

    return mock.patch.object(FileHandler, "resize", refuse)


def test_empty_legs_that_cannot_grow_make_a_smaller_disk(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(bytes(SIZE))
    with without_growing(), build(plain_mirror(tmp_path)) as made:
        assert made.geometry.size == SIZE - MARK
        wait_until(lambda: whole(made))
    assert (tmp_path / "a.img").stat().st_size == SIZE


def test_a_full_leg_that_cannot_grow_is_refused_and_a_split_helps(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "a.mark").write_bytes(bytes(MARK))
    (tmp_path / "b.img").write_bytes(bytes(2 * SIZE))
    document = dict(plain_mirror(tmp_path))
    with without_growing():
        with pytest.raises(
            UsageError, match=f"no room for a mark .* it has {SIZE} bytes, and {SIZE + MARK} are"
        ):
            build(document).open()
        assert not (tmp_path / "mirror.state").exists()
        document["legs"] = [
            {"handler": "split", "legs": [str(tmp_path / "a.img"), str(tmp_path / "a.mark")]},
            str(tmp_path / "b.img"),
        ]
        with pytest.raises(UsageError, match="holds data"):
            build(document).open()


# Other media in the place of a leg


def test_an_empty_file_in_the_place_of_a_leg_is_written_as_a_whole(disk: Path) -> None:
    (disk / "b.img").unlink()
    (disk / "b.img").write_bytes(bytes(SIZE))
    with without_copying(), build(plain_mirror(disk)) as made:
        assert standings(made) == "wb"
        for offset in range(0, SIZE, 64 * KIB):
            assert read(made, offset, 512) == A[offset : offset + 512]
    with build(plain_mirror(disk)) as made:
        wait_until(lambda: whole(made))
    assert content(disk, "b") == A


def test_data_of_somebody_else_in_the_place_of_a_leg_is_kept_until_that_is_said(disk: Path) -> None:
    (disk / "b.img").write_bytes(b"somebody else's" + bytes(SIZE - 15))
    with build(plain_mirror(disk)) as made:
        assert standings(made) == "wg"
        assert "it has no mark, and is not empty" in why(made, 1)
        write(made, 0, b"goes on")
        assert content(disk, "b").startswith(b"somebody else's")
        handler_of(made).overwrite(1)
        wait_until(lambda: whole(made))
        with pytest.raises(UsageError, match=r"leg 1 .* is in use"):
            handler_of(made).overwrite(1)
    assert content(disk, "b") == content(disk, "a")


def test_a_leg_of_another_mirror_is_never_written(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in "ab":
        (other / f"{name}.img").write_bytes(b"x" * SIZE if name == "a" else bytes(SIZE))
    with build(plain_mirror(other)) as made:
        wait_until(lambda: whole(made))
    foreign = (other / "b.img").read_bytes()
    (disk / "b.img").write_bytes(foreign)
    with build(plain_mirror(disk)) as made:
        assert "the mark of another mirror" in why(made, 1)
        handler_of(made).overwrite(1)
        handler_of(made).retry()
        write(made, 0, b"x")
        with pytest.raises(UsageError, match="mark of another mirror"):
            handler_of(made).add_leg(build(str(other / "a.img")), overwrite=True)
    assert (disk / "b.img").read_bytes() == foreign


def test_an_older_copy_of_a_leg_is_written_as_a_whole(disk: Path) -> None:
    shutil.copy(disk / "b.img", disk / "b.old")
    with build(plain_mirror(disk)) as made:
        write(made, 1000, b"written after the copy was made")
    shutil.copy(disk / "b.old", disk / "b.img")
    with without_copying(), build(plain_mirror(disk)) as made:
        assert standings(made) == "wb"
    with build(plain_mirror(disk)) as made:
        wait_until(lambda: whole(made))
    assert content(disk, "b")[1000:1030] == b"written after the copy was mad"


def test_a_copy_that_was_made_during_a_session_is_old_after_it(disk: Path) -> None:
    with build(plain_mirror(disk)) as made:
        shutil.copy(disk / "b.img", disk / "b.old")
        write(made, 1000, b"later")
    shutil.copy(disk / "b.old", disk / "b.img")
    with without_copying(), build(plain_mirror(disk)) as made:
        assert standings(made) == "wb"


def test_a_copy_from_before_a_session_is_old_as_soon_as_that_has_begun(disk: Path) -> None:
    shutil.copy(disk / "b.img", disk / "b.old")
    stack = build(plain_mirror(disk))
    stack.open()
    kept = {name: (disk / name).read_bytes() for name in ("a.img", "mirror.state")}
    stack.close()
    for name, data in kept.items():
        (disk / name).write_bytes(data)
    shutil.copy(disk / "b.old", disk / "b.img")
    with without_copying(), build(plain_mirror(disk)) as made:
        assert standings(made) == "wb"


def test_a_leg_and_its_copy_do_not_both_take_part(disk: Path) -> None:
    shutil.copy(disk / "b.img", disk / "c.img")
    with build(plain_mirror(disk, 3)) as made:
        assert standings(made) == "wwg"
        assert "the same mark as leg 1" in why(made, 2)
        with pytest.raises(UsageError, match="the same mark as leg 1"):
            handler_of(made).add_leg(build({"handler": "stats", "next": str(disk / "c.img")}))


def test_of_a_leg_and_its_older_copy_the_leg_takes_part(disk: Path) -> None:
    shutil.copy(disk / "b.img", disk / "old.img")
    with build(plain_mirror(disk)) as made:
        write(made, 0, b"later")
    document = {**plain_mirror(disk), "legs": [str(disk / f"{name}.img") for name in ("old", "a", "b")]}
    with build(document) as made:
        assert standings(made) == "gww"
        assert "the same mark as leg 2" in why(made, 0)


def test_a_leg_that_was_exchanged_while_it_was_gone(disk: Path) -> None:
    with build({**mirror(disk), "retry": 0}) as made:
        wait_until(lambda: whole(made))
        (disk / "b.fail").touch()
        write(made, 0, b"missed")
        (disk / "b.img").unlink()
        (disk / "b.img").write_bytes(bytes(SIZE))
        (disk / "b.fail").unlink()
        wait_until(lambda: whole_again(made))
    assert content(disk, "b") == content(disk, "a")


def test_a_leg_that_was_removed_has_no_mark_and_comes_back_only_if_that_is_said(disk: Path) -> None:
    with build(plain_mirror(disk)) as made:
        handler_of(made).remove_leg(1)
        write(made, 0, b"without it")
        assert mark_of_used(disk / "b.img") is None
        again = build(str(disk / "b.img"))
        with pytest.raises(UsageError, match="it has no mark, and is not empty"):
            handler_of(made).add_leg(again)
        assert handler_of(made).add_leg(build(str(disk / "b.img")), overwrite=True) == 2
        wait_until(lambda: whole(made))
    assert content(disk, "b") == content(disk, "a")


# Making one, and making the state file anew


def test_a_new_mirror_overwrites_no_data_unless_that_is_said(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(A if name == "a" else b"x" * SIZE)
    with pytest.raises(UsageError, match=r"leg 1 .* is not empty, and a new mirror would overwrite it"):
        build(plain_mirror(tmp_path)).open()
    assert [(tmp_path / f"{name}.img").stat().st_size for name in "ab"] == [SIZE, SIZE]
    assert not (tmp_path / "mirror.state").exists()
    with build({**plain_mirror(tmp_path), "overwrite": True}) as made:
        wait_until(lambda: whole(made))
    assert content(tmp_path, "b") == A


def test_the_state_file_is_made_from_the_marks_and_not_from_the_first_leg(disk: Path) -> None:
    document = plain_mirror(disk)
    (disk / "a.img").rename(disk / "away.img")
    with build(document) as made:
        write(made, 0, b"only on leg 1")
    (disk / "away.img").rename(disk / "a.img")
    (disk / "mirror.state").unlink()
    with build(document) as made:
        assert read(made, 0, 13) == b"only on leg 1"
        wait_until(lambda: whole(made))
    assert content(disk, "a")[:13] == b"only on leg 1"


def test_a_stale_leg_alone_is_not_believed_when_the_state_file_is_lost(disk: Path) -> None:
    (disk / "b.img").rename(disk / "away.img")
    with build(plain_mirror(disk)) as made:
        write(made, 0, b"only on leg 0")
    (disk / "away.img").rename(disk / "b.img")
    (disk / "mirror.state").unlink()
    alone: dict[str, Any] = {**plain_mirror(disk), "legs": [str(disk / "b.img")]}
    with pytest.raises(
        HostError, match=r'marks do not decide .* say "decide": "[0-9a-f-]+@\d+" for leg'
    ) as caught:
        build(alone).open()
    assert not (disk / "mirror.state").exists()
    words = str(caught.value).rpartition('"decide": "')[2].partition('"')[0]
    with build({**alone, "decide": words}) as made:
        assert read(made, 0, 13) == A[:13]
    # The words are used up, and the leg that has gone its own way is written only if that is said.
    document = {**plain_mirror(disk), "decide": words}
    with build(document) as made:
        assert "it is part of the mirror no more" in why(made, 0)
        handler_of(made).overwrite(0)
        wait_until(lambda: whole(made))
        assert read(made, 0, 13) == A[:13]


def test_an_older_state_file_is_not_believed(disk: Path) -> None:
    shutil.copy(disk / "mirror.state", disk / "old.state")
    with without_copying(), build(plain_mirror(disk)) as made:
        write(made, 70000, b"dirty")
        kept = {name: (disk / name).read_bytes() for name in ("a.img", "b.img")}
    for name, data in kept.items():
        (disk / name).write_bytes(data)
    with (disk / "b.img").open("r+b") as file:  # the write did not reach this leg
        file.seek(70000)
        file.write(A[70000:70005])
    shutil.copy(disk / "old.state", disk / "mirror.state")
    with build(plain_mirror(disk)) as made:
        wait_until(lambda: whole(made))
    assert content(disk, "b") == content(disk, "a")


# Identity


def test_a_mirror_is_the_same_however_it_is_written(disk: Path) -> None:
    first = plain_mirror(disk)
    turned = {**first, "legs": list(reversed(first["legs"]))}
    for document in (canonical(first, Registry()), turned, mirror(disk)):
        with build(document) as made:
            assert whole(made)
            assert handler_of(made)._members.state.dirty() == []


def test_legs_may_move(disk: Path) -> None:
    (disk / "elsewhere").mkdir()
    (disk / "b.img").rename(disk / "elsewhere" / "c.img")
    document = {**plain_mirror(disk), "legs": [str(disk / "elsewhere" / "c.img"), str(disk / "a.img")]}
    with build(document) as made:
        assert whole(made)


# Any failure


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("bad handler"), HostError("refused")])
@pytest.mark.parametrize("verb", ["write", "flush", "read"])
def test_any_exception_of_a_leg_drops_it(disk: Path, error: Exception, verb: str) -> None:
    real = getattr(FileHandler, verb)

    def failing(handler: FileHandler, *words: Any, **more: Any) -> Any:
        if handler.options.path.endswith("a.img"):
            raise error
        return real(handler, *words, **more)

    with build(plain_mirror(disk)) as made:
        with mock.patch.object(FileHandler, verb, failing):
            if verb == "read":
                assert read(made, 0, 10) == A[:10]
            elif verb == "write":
                write(made, 0, b"goes on")
            else:
                made.flush()
            assert standings(made) == "gw"
        wait_until(lambda: whole_again(made))
    assert content(disk, "a") == content(disk, "b")


def test_a_leg_to_which_nothing_can_be_handed_is_dropped(disk: Path) -> None:
    with build(plain_mirror(disk)) as made:
        legs = handler_of(made)._members.legs
        with mock.patch.object(legs[1], "submit", side_effect=MemoryError):
            write(made, 0, b"on one leg only")
        assert standings(made) == "wg"
        wait_until(lambda: whole_again(made))
    assert content(disk, "a") == content(disk, "b")


def test_a_write_that_fails_on_all_legs_leaves_no_difference(disk: Path) -> None:
    real = FileHandler.write

    def failing(handler: FileHandler, offset: int, views: Any, **more: Any) -> None:
        if not handler.options.path.endswith("b.img"):
            real(handler, offset, views, **more)
        if handler.options.path.endswith(".img"):
            raise OSError(errno.EIO, "failed")

    with build(plain_mirror(disk)) as made:
        with mock.patch.object(FileHandler, "write", failing), pytest.raises(OSError, match="failed"):
            write(made, 0, b"on one leg only")
        assert standings(made) == "ww"
        wait_until(lambda: whole_again(made))
    assert content(disk, "a") == content(disk, "b")


def test_a_thread_that_cannot_be_started_drops_a_leg(disk: Path) -> None:
    with build(plain_mirror(disk)) as made:
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith("leg1-"):
                raise RuntimeError("can't start new thread")
            real(thread)

        handler_of(made)._members.judge(
            handler_of(made)._members.legs, {handler_of(made)._members.legs[1]: OSError(5, "once")}
        )
        with mock.patch.object(threading.Thread, "start", start):
            assert not handler_of(made)._members.admit(handler_of(made)._members.legs[1])
            write(made, 0, b"goes on")
        assert "no thread can be started" in why(made, 1)
        wait_until(lambda: whole_again(made))


def test_the_thread_that_brings_legs_back_outlives_any_failure(disk: Path) -> None:
    with build({**plain_mirror(disk), "retry": 0.01}) as made:
        members = handler_of(made)._members
        with mock.patch.object(members, "admit", side_effect=MemoryError) as admit:
            members.judge(members.legs, {members.legs[1]: OSError(5, "once")})
            handler_of(made).retry()
            wait_until(lambda: admit.call_count > 1)
        wait_until(lambda: whole(made))


def test_a_leg_that_is_tried_again_while_it_is_being_closed_comes_back(disk: Path) -> None:
    closing, free, real = threading.Event(), threading.Event(), FileHandler.close

    def slow(handler: FileHandler) -> None:
        if handler.options.path.endswith("b.img") and not closing.is_set():
            closing.set()
            free.wait(PATIENCE)
        real(handler)

    document = {**plain_mirror(disk), "retry": 0.01}
    with mock.patch.object(FileHandler, "close", slow), build(document) as made:
        wait_until(lambda: whole_again(made))
        members = handler_of(made)._members
        members.judge(members.legs, {members.legs[1]: OSError(5, "once")})
        assert closing.wait(PATIENCE)
        handler_of(made).retry()
        write(made, 0, b"goes on")
        assert standings(made) == "wg"
        free.set()
        wait_until(lambda: whole_again(made))
    assert content(disk, "b") == content(disk, "a")


def test_a_leg_that_opens_too_late_is_closed_and_comes_back(disk: Path) -> None:
    late, free = threading.Event(), threading.Event()
    real = FileHandler.open

    def slow(handler: FileHandler) -> None:
        if handler.options.path.endswith("b.img") and not late.is_set():
            late.set()
            free.wait(PATIENCE)
        real(handler)

    with mock.patch.object(FileHandler, "open", slow), build({**plain_mirror(disk), "timeout": 1.0}) as made:
        assert standings(made) == "wg"
        assert "no answer within" in why(made, 1)
        write(made, 0, b"goes on")
        free.set()
        wait_until(lambda: whole_again(made))
    assert content(disk, "b") == content(disk, "a")


def test_a_write_that_all_legs_are_late_with_never_lands_over_a_newer_one(disk: Path) -> None:
    free, real = threading.Event(), FileHandler.write

    def slow(handler: FileHandler, offset: int, views: Any, **more: Any) -> None:
        if bytes(views[0][:3]) == b"old":
            free.wait(PATIENCE)
        real(handler, offset, views, **more)

    with build({**plain_mirror(disk), "timeout": 1.0}) as made:
        wait_until(lambda: whole_again(made))
        write(made, 0, b"first")
        with mock.patch.object(FileHandler, "write", slow):
            with pytest.raises(OSError, match="no answer within"):
                write(made, 0, b"old")
            with pytest.raises(OSError, match="a leg has not answered an earlier request yet"):
                write(made, 0, b"new")
            assert standings(made) == "ww"
            free.set()
            wait_until(lambda: answered(made))
        write(made, 0, b"new")
        wait_until(lambda: whole_again(made))
        assert read(made, 0, 3) == b"new"
    assert content(disk, "a") == content(disk, "b")


def test_a_write_that_has_waited_for_one_that_all_legs_are_late_with_is_refused(disk: Path) -> None:
    free, begun, real = threading.Event(), threading.Event(), FileHandler.write
    failures: list[str] = []

    def slow(handler: FileHandler, offset: int, views: Any, **more: Any) -> None:
        if bytes(views[0][:3]) == b"old":
            begun.set()
            free.wait(PATIENCE)
        real(handler, offset, views, **more)

    def failing(data: bytes) -> None:
        try:
            write(made, 0, data)
        except OSError as error:
            failures.append(str(error))

    with build({**plain_mirror(disk), "timeout": 1.0}) as made, mock.patch.object(FileHandler, "write", slow):
        wait_until(lambda: whole_again(made))
        threads = [threading.Thread(target=failing, args=(data,)) for data in (b"old", b"new")]
        threads[0].start()
        assert begun.wait(PATIENCE)
        threads[1].start()
        for thread in threads:
            thread.join(PATIENCE)
        free.set()
        wait_until(lambda: answered(made))
        assert [failure.split("] ")[-1][:9] for failure in failures] == ["no answer", "a leg has"]
        write(made, 0, b"newer")
        wait_until(lambda: whole_again(made))
        assert read(made, 0, 5) == b"newer"
    assert content(disk, "a") == content(disk, "b")


def test_a_leg_that_is_being_removed_is_no_reason_to_drop_another_one(disk: Path) -> None:
    with build(plain_mirror(disk)) as made:
        members = handler_of(made)._members
        kept, removed = members.legs
        with mock.patch.object(members, "legs", [kept]):
            with pytest.raises(OSError, match="once"):
                members.judge([kept, removed], {kept: OSError(5, "once")})
            assert standings(made) == "w"
            assert read(made, 0, 8) == A[:8]


def test_a_leg_that_was_removed_or_could_not_be_added_is_not_opened_again(disk: Path) -> None:
    with build(plain_mirror(disk)) as made:
        members = handler_of(made)._members
        leg = members.legs[1]
        handler_of(made).remove_leg(1)
        assert not members.admit(leg)  # as the thread would that had seen it before
        assert standings(made) == "w"
        assert leg.standing.value == "gone"


def test_a_leg_that_cannot_be_removed_misses_nothing_meanwhile(disk: Path) -> None:
    with build({**plain_mirror(disk), "retry": 0.0}) as made:
        members = handler_of(made)._members
        seen: list[int] = []

        def refuse() -> None:
            seen.append(len(members.standing(Standing.WHOLE)))
            raise OSError(5, "no majority")

        with (
            mock.patch.object(members.record, "check_majority", side_effect=refuse),
            pytest.raises(OSError, match="no majority"),
        ):
            handler_of(made).remove_leg(1)
        assert seen == [2]  # so that what is written or copied now goes to both
        assert standings(made) == "ww"


def test_a_leg_that_is_dropped_while_another_one_cannot_be_removed_has_to_be_recorded(disk: Path) -> None:
    (disk / "c.img").write_bytes(bytes(SIZE))
    with build({**plain_mirror(disk), "retry": 0.0}) as made:
        handler_of(made).add_leg(build(str(disk / "c.img")))
        wait_until(lambda: whole_again(made))
        members = handler_of(made)._members
        failures = [{members.legs[1]: OSError(5, "once")}, {}]
        with (
            mock.patch.object(members.record, "write", side_effect=failures),
            mock.patch.object(members.record, "check_majority", side_effect=OSError(5, "no majority")),
            pytest.raises(OSError, match="no majority"),
        ):
            handler_of(made).remove_leg(0)
        assert standings(made) == "wgw"
        assert members.record.is_due
        write(made, 0, b"recorded first")
        assert not members.record.is_due


def test_a_mark_that_a_leg_is_late_with_never_lands_over_a_newer_one(disk: Path) -> None:
    free, real = threading.Event(), Superblock.replace
    late = threading.Event()

    def slow(store: Superblock, text: bytes, **more: Any) -> None:
        if store._kind == "mark of a mirror's leg" and not late.is_set():
            late.set()
            free.wait(PATIENCE)
        real(store, text, **more)

    document = {**plain_mirror(disk), "timeout": 1.0, "retry": 0.0}
    with build(document) as made:
        members = handler_of(made)._members
        wait_until(lambda: whole_again(made))
        members.judge(members.legs, {members.legs[1]: OSError(5, "once")})
        with mock.patch.object(Superblock, "replace", slow):
            with pytest.raises(OSError, match="no answer within"):
                members.keep()
            with pytest.raises(OSError, match="has not answered an earlier request yet"):
                members.keep()
            with pytest.raises(OSError, match="has not answered an earlier request yet"):
                write(made, 0, b"not recorded")
            free.set()
            wait_until(lambda: answered(made))
        write(made, 0, b"recorded")
        found = members.metadata
    mark = mark_of(disk / "a.img")
    assert mark is not None
    assert mark.event >= found.event
    with build(document) as made:
        assert read(made, 0, 8) == b"recorded"


def test_writes_that_overlap_reach_all_legs_in_one_order(disk: Path) -> None:
    free, real = threading.Event(), FileHandler.write

    def slow(handler: FileHandler, offset: int, views: Any, **more: Any) -> None:
        if bytes(views[0][:5]) == b"first" and handler.options.path.endswith("b.img"):
            free.wait(PATIENCE)
        real(handler, offset, views, **more)

    with build(plain_mirror(disk)) as made, mock.patch.object(FileHandler, "write", slow):
        queue = handler_of(made)._members.regions._ranges._queue
        threads = [threading.Thread(target=write, args=(made, 0, data)) for data in (b"first", b"second")]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda: len(queue) == number + 1)  # noqa: B023
        free.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert content(disk, "a")[:6] == content(disk, "b")[:6] == b"second"


def test_no_write_is_acknowledged_before_the_drop_is_recorded(disk: Path) -> None:
    real = mirror_state.MirrorState.save
    document = mirror(disk)
    with build(document) as made:
        wait_until(lambda: whole(made))
        write(made, 0, b"one")
        full = OSError(errno.ENOSPC, "No space left on device")
        (disk / "a.fail").touch()
        with mock.patch.object(mirror_state.MirrorState, "save", side_effect=full):
            for _ in range(2):
                with pytest.raises(
                    OSError, match="cannot be recorded by a majority: No space left"
                ) as caught:
                    write(made, 0, b"two")
                assert caught.value.errno == errno.ENOSPC
            with pytest.raises(OSError, match="cannot be recorded"):
                made.flush()
            assert read(made, 0, 3) in (b"one", b"two")
        assert mirror_state.MirrorState.save is real
        write(made, 0, b"two")
        assert standings(made) == "gw"
    (disk / "a.fail").unlink()
    with build(document) as made:
        assert read(made, 0, 3) == b"two"


def test_legs_that_were_used_without_each_other_and_could_not_record_it_do_not_contradict(disk: Path) -> None:
    full = mock.patch.object(
        mirror_state.MirrorState, "save", side_effect=OSError(errno.ENOSPC, "No space left on device")
    )
    stack = build({**plain_mirror(disk), "retry": 0.0})
    members = handler_of(stack.open())._members
    members.judge(members.legs, {members.legs[1]: OSError(5, "once")})
    with full, pytest.raises(OSError, match="cannot be recorded by a majority"):
        members.keep()
    killed = mock.patch.object(members, "keep", side_effect=OSError(5, "killed before that"))
    with killed, pytest.raises(OSError, match="killed before that"):
        stack.close()
    (disk / "a.img").rename(disk / "away")
    with full, pytest.raises(OSError, match="cannot be recorded by a majority"):
        build(plain_mirror(disk)).open()
    (disk / "away").rename(disk / "a.img")
    with build(plain_mirror(disk)) as made:
        assert standings(made) == "ww"


def test_a_state_file_whose_flush_has_failed_once_is_written_anew(disk: Path) -> None:
    real, failures = os.fdatasync, [OSError(errno.EIO, "once")]

    def fdatasync(fd: int) -> None:
        if failures and Path(f"/proc/self/fd/{fd}").readlink().name == "mirror.state":
            with (disk / "mirror.state").open("r+b") as file:  # the kernel has thrown the pages away
                file.seek(8192)
                file.write(bytes(512))
            raise failures.pop()
        real(fd)

    with without_copying(), build(plain_mirror(disk)) as made:
        state = handler_of(made)._members.state
        write(made, 0, b"dirty")
        with (
            mock.patch.object(os, "fdatasync", fdatasync),
            mock.patch.object(mirror_state, "_DOUBLINGS", 0),
        ):
            with pytest.raises(OSError, match="once"):
                write(made, 65536, b"x")
            write(made, 131072, b"x")
        assert state.dirty() == [0, 2]
        kept = (disk / "mirror.state").read_bytes()
        (disk / "copy.state").write_bytes(kept)
        copy = mirror_state.MirrorState(str(disk / "copy.state"))
        assert copy.dirty() == [0, 2]
        copy.close()


def test_a_leg_whose_mark_cannot_be_written_is_dropped(disk: Path) -> None:
    def failing(leg: Handler, metadata: Metadata) -> None:
        if "b.img" in leg.identity:
            raise OSError(errno.EIO, "its end cannot be written")
        write_mark(leg, metadata)

    with build(plain_mirror(disk)) as made:
        with mock.patch("vscsihba.handlers.mirror.leg.write_mark", failing):
            made.resize(SIZE - 4096)
        assert standings(made) == "wg"
        assert "its end cannot be written" in why(made, 1)
        wait_until(lambda: whole_again(made))


def test_no_mark_is_written_into_the_new_part_of_a_disk_that_is_enlarged(disk: Path) -> None:
    begun, never, late = threading.Event(), threading.Event(), [True]

    def encode(metadata: Metadata) -> bytes:
        if late:  # the place of the mark has been chosen already
            late.pop()
            begun.set()
            never.wait(1)
        return mirror_metadata.encode(metadata)

    with without_copying(), build(plain_mirror(disk)) as made:
        with mock.patch("vscsihba.handlers.mirror.mark.encode", encode):
            keeping = threading.Thread(target=handler_of(made)._members.keep)
            keeping.start()
            assert begun.wait(PATIENCE)
            made.resize(SIZE + 65536)
            keeping.join(PATIENCE)
        assert not any(read(made, SIZE, 65536))
    for name in "ab":
        assert not any((disk / f"{name}.img").read_bytes()[SIZE : SIZE + 65536])


def test_the_new_part_of_a_leg_is_zeroes_on_stable_storage_before_the_disk_is_larger(disk: Path) -> None:
    with without_copying(), build(plain_mirror(disk)) as made:
        members = handler_of(made)._members
        forced: list[tuple[int, int]] = []
        zero = FileHandler.write_zeroes

        def note(leg: FileHandler, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
            zero(leg, offset, length, may_unmap=may_unmap, fua=fua)
            assert members.metadata.size == SIZE
            if fua:
                forced.append((offset, length))

        with mock.patch.object(FileHandler, "write_zeroes", note):
            made.resize(SIZE + 65536)
        assert forced == [(SIZE, 65536)] * 2


def test_a_leg_that_could_not_be_enlarged_once_keeps_its_mark(disk: Path) -> None:
    before = mark_of(disk / "b.img")
    with build(str(disk / "b.img")) as leg:
        failing = mock.patch(
            "vscsihba.handlers.mirror.mark.write_mark", side_effect=OSError(errno.EIO, "gone")
        )
        with failing, pytest.raises(OSError, match="gone"):
            enlarge(leg, SIZE, SIZE + 65536)
        assert read_mark(leg, [SIZE]).metadata == before
        with failing, pytest.raises(OSError, match="gone"):
            enlarge(leg, SIZE, SIZE + 65536)
        assert read_mark(leg, [SIZE]).metadata == before
        enlarge(leg, SIZE, SIZE + 65536)
        assert read_mark(leg).metadata == before
        assert not any(read(leg, SIZE, 65536))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "the mark cannot be moved"),
        MemoryError("no memory"),
        UsageError("no disk can have that size"),
    ],
)
def test_a_disk_is_smaller_though_its_legs_stay_large(disk: Path, error: Exception) -> None:
    with without_copying(), build(plain_mirror(disk)) as made:
        with mock.patch("vscsihba.handlers.mirror.members.Members.shrink", side_effect=error):
            made.resize(SIZE - 65536)
        assert made.geometry.size == SIZE - 65536
        made.resize(SIZE)
        assert read(made, 0, SIZE) == A[: SIZE - 65536] + bytes(65536)
    with build(plain_mirror(disk)) as made:
        wait_until(lambda: whole(made))
        assert read(made, 0, SIZE) == A[: SIZE - 65536] + bytes(65536)


def test_legs_do_not_shrink_before_the_state_file_has_the_size_of_the_disk(disk: Path) -> None:
    (disk / "crashed").mkdir()
    with without_copying(), build(plain_mirror(disk)) as made:
        with mock.patch.object(mirror_state.MirrorState, "save", side_effect=OSError(errno.EIO, "gone")):
            made.resize(SIZE - 65536)
        assert made.geometry.size == SIZE - 65536
        for name in ("a.img", "b.img", "mirror.state"):
            shutil.copy(disk / name, disk / "crashed" / name)
    with build(plain_mirror(disk / "crashed")) as made:
        assert made.geometry.size == SIZE - 65536
        assert read(made, 0, SIZE - 65536) == A[: SIZE - 65536]


def test_a_disk_that_could_not_shrink_is_written_to_its_end(disk: Path) -> None:
    with without_copying(), build(plain_mirror(disk)) as made:
        failing = mock.patch(
            "vscsihba.handlers.mirror.leg.write_mark", side_effect=OSError(errno.EIO, "gone")
        )
        with failing, pytest.raises(OSError, match="gone"):
            made.resize(SIZE - 2 * 65536)
        assert made.geometry.size == SIZE
        write(made, SIZE - 65536, b"behind")
        assert read(made, SIZE - 65536, 6) == b"behind"
    with build(plain_mirror(disk)) as made:
        wait_until(lambda: whole(made))
        assert read(made, SIZE - 65536, 6) == b"behind"


def test_a_leg_that_was_away_gets_the_part_that_the_disk_lost_and_has_again(disk: Path) -> None:
    """The log may have more regions than the disk, as its file missed that the disk became smaller."""
    with without_copying(), build(plain_mirror(disk)) as made:
        members = handler_of(made)._members
        members.judge(members.legs, {members.legs[0]: OSError(errno.EIO, "gone")})
        members.keep()
        assert members.state.dirty() == []
        with mock.patch.object(mirror_state.MirrorState, "save", side_effect=OSError(errno.EIO, "full")):
            made.resize(SIZE - 2 * 65536)
            made.resize(SIZE)
        assert read(made, SIZE - 2 * 65536, 2 * 65536) == bytes(2 * 65536)
    with build(plain_mirror(disk)) as made:
        wait_until(lambda: whole(made))
    assert content(disk, "a") == content(disk, "b") == A[: SIZE - 2 * 65536] + bytes(2 * 65536)


def test_three_legs_record_a_drop_without_the_state_file(disk: Path) -> None:
    (disk / "c.img").write_bytes(bytes(SIZE))
    with build(plain_mirror(disk)) as made:
        handler_of(made).add_leg(build(str(disk / "c.img")))
        wait_until(lambda: whole(made))
        members = handler_of(made)._members
        write(made, 0, b"one")
        with mock.patch.object(mirror_state.MirrorState, "save", side_effect=OSError(errno.EIO, "gone")):
            with mock.patch.object(members.legs[0], "submit", side_effect=OSError(errno.EIO, "dead")):
                write(made, 0, b"two")
            assert standings(made) == "gww"


# Regions are forgotten only after they are equal and flushed


@contextmanager
def at_once() -> Iterator[None]:
    """Let each flush begin a period, and let regions be forgotten by flushes only."""
    with mock.patch.object(mirror_state, "_PERIOD", 0.0), mock.patch.object(Synchroniser, "_forget"):
        yield


def test_a_region_that_becomes_equal_during_a_flush_is_not_forgotten_by_it(disk: Path) -> None:
    with (
        at_once(),
        without_copying(),
        build(plain_mirror(disk)) as made,
    ):
        members = handler_of(made)._members
        write(made, 0, b"x")
        write(made, 65536, b"x")
        members.regions.unsettled.add(1)
        made.flush()
        made.flush()
        real = members.everywhere

        def copied_meanwhile(verb: Callable[[Any], object], **more: Any) -> None:
            members.regions.unsettled.discard(1)
            real(verb, **more)

        with mock.patch.object(members, "everywhere", copied_meanwhile):
            made.flush()
        assert members.state.dirty() == [1]
        made.flush()
        assert members.state.dirty() == []


def test_a_region_that_is_written_during_a_flush_is_not_forgotten_by_it(disk: Path) -> None:
    with at_once(), build(plain_mirror(disk)) as made:
        members = handler_of(made)._members
        write(made, 0, b"x")
        for _ in range(2):
            made.flush()
        assert members.state.dirty() == [0]
        real = members.everywhere

        def written_meanwhile(verb: Callable[[Any], object], **more: Any) -> None:
            real(verb, **more)
            with mock.patch.object(members, "everywhere", real):
                write(made, 10, b"y")

        with mock.patch.object(members, "everywhere", written_meanwhile):
            made.flush()
        assert members.state.dirty() == [0]


def test_a_region_that_is_written_during_a_flush_of_several_periods_is_not_forgotten_by_it(
    disk: Path,
) -> None:
    with at_once(), build(plain_mirror(disk)) as made:
        members = handler_of(made)._members
        write(made, 0, b"x")
        for _ in range(2):
            made.flush()
        real = members.everywhere

        def written_meanwhile(verb: Callable[[Any], object], **more: Any) -> None:
            real(verb, **more)
            with mock.patch.object(members, "everywhere", real):
                write(made, 10, b"y")
            for _ in range(3):
                members.idle_regions()  # as further flushes do that have begun and not ended

        with mock.patch.object(members, "everywhere", written_meanwhile):
            made.flush()
        assert members.state.dirty() == [0]


def test_nothing_is_forgotten_at_the_end_while_regions_may_differ(disk: Path) -> None:
    with without_copying(), build(plain_mirror(disk)) as made:
        write(made, 0, b"x")
        handler_of(made)._members.regions.unsettled.add(0)
    with without_copying(), build(plain_mirror(disk)) as made:
        assert handler_of(made)._members.regions.unsettled == {0}


@contextmanager
def failing_once(directory: Path, after: bytes) -> Iterator[None]:
    """Let the first flush of the second leg fail that comes after the leg was given some bytes."""
    real, failures = FileHandler.flush, [OSError(errno.EIO, "the pages are gone")]

    def flush(handler: FileHandler) -> None:
        if handler.options.path.endswith("b.img") and after in content(directory, "b") and failures:
            raise failures.pop()
        real(handler)

    with mock.patch.object(FileHandler, "flush", flush):
        yield


def test_a_leg_counts_only_after_what_it_was_given_is_flushed(disk: Path) -> None:
    (disk / "b.img").unlink()
    (disk / "b.img").write_bytes(bytes(SIZE))
    with failing_once(disk, A[:4096]), build(plain_mirror(disk)) as made:
        wait_until(lambda: standings(made) == "wg")
        assert "the pages are gone" in why(made, 1)


def test_a_leg_without_a_mark_counts_only_after_what_it_was_given_is_flushed(tmp_path: Path) -> None:
    """Writing a mark flushes the leg, too; this one has no room for a mark."""
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "b.img").write_bytes(bytes(SIZE))
    make_version_1(tmp_path, whole=(True, False), dirty=b"\0\1\0\0\0")
    with without_growing(), failing_once(tmp_path, A[65536:131072]), build(plain_mirror(tmp_path)) as made:
        wait_until(lambda: standings(made) != "wb")
        assert standings(made) == "wg"
        assert "the pages are gone" in why(made, 1)


# Version 1


def make_version_1(directory: Path, *, whole: tuple[bool, bool], dirty: bytes) -> None:
    """Write a state file as releases before marks did."""
    uuid = "0b4e39a6-e1ad-4c40-9f10-000000000001"
    header = {
        "version": 1,
        "uuid": uuid,
        "size": SIZE,
        "region_size": 65536,
        "legs": [
            {"key": "0123456789abcdef", "identity": f"file:{directory / name}", "whole": is_whole}
            for name, is_whole in zip(("a.img", "b.img"), whole, strict=True)
        ],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    slots = superblock.encode(4, text, b"VSCSIMIR", "mirror") + superblock.encode(
        3, text, b"VSCSIMIR", "mirror"
    )
    (directory / "mirror.state").write_bytes(slots + sectors.encode(0, dirty, uuid))


def test_a_mirror_of_version_1_gets_marks(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "b.img").write_bytes(A)
    make_version_1(tmp_path, whole=(True, True), dirty=bytes(5))
    with build({**plain_mirror(tmp_path), "create": False}) as made:
        assert whole(made)
        assert made.identity == "mirror:0b4e39a6-e1ad-4c40-9f10-000000000001"
        assert handler_of(made)._members.state.dirty() == []
        assert all(leg.marked for leg in handler_of(made).status())
    for name in "ab":
        mark = mark_of(tmp_path / f"{name}.img")
        assert mark is not None
        assert mark.version == 2
        assert mark.members == {leg.uuid for leg in mark.legs}
    (tmp_path / "mirror.state").unlink()
    with build(plain_mirror(tmp_path)) as made:
        assert read(made, 0, SIZE) == A


def test_a_leg_of_version_1_that_is_behind_gets_the_dirty_regions(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "b.img").write_bytes(bytes(SIZE))
    make_version_1(tmp_path, whole=(True, False), dirty=b"\0\1\0\0\0")
    with build(plain_mirror(tmp_path)) as made:
        wait_until(lambda: whole(made))
    assert content(tmp_path, "b") == bytes(65536) + A[65536:131072] + bytes(SIZE - 131072)


def test_legs_of_version_1_that_have_no_room_go_on_without_marks(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "b.img").write_bytes(A)
    make_version_1(tmp_path, whole=(True, True), dirty=bytes(5))
    for _ in range(2):
        with without_growing(), build(plain_mirror(tmp_path)) as made:
            assert whole(made)
            assert not any(leg.marked for leg in handler_of(made).status())
            write(made, 0, b"both")
    assert content(tmp_path, "a") == content(tmp_path, "b") == b"both" + A[4:]
    with build(plain_mirror(tmp_path)) as made:
        assert whole(made)
        assert all(leg.marked for leg in handler_of(made).status())


def test_an_unknown_leg_of_version_1_is_no_leg(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(A)
    (tmp_path / "b.img").write_bytes(A)
    make_version_1(tmp_path, whole=(True, True), dirty=bytes(5))
    (tmp_path / "b.img").rename(tmp_path / "c.img")
    document = {**plain_mirror(tmp_path), "legs": [str(tmp_path / "a.img"), str(tmp_path / "c.img")]}
    with build(document) as made:
        assert standings(made) == "wg"
        assert "no mark, and is not empty" in why(made, 1)


# Emptiness


class LikeADevice(PassThrough):
    """A layer that knows of no holes."""

    name = "like_a_device"

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        return [ExtentStatus(Extent(offset, length), allocated=True, zero=False)]


class WithDevice(Registry):
    def get(self, name: str) -> type[Handler]:
        return LikeADevice if name == LikeADevice.name else super().get(name)


@pytest.mark.parametrize(("at", "empty"), [(None, True), (0, False), (SIZE - 1, False), (SIZE, True)])
def test_a_medium_is_empty_if_it_has_zeroes_only(tmp_path: Path, at: int | None, empty: bool) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(bytes(SIZE + MARK))
    if at is not None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"x")
    with build(str(path)) as leg:
        assert is_empty(leg, SIZE) is empty


@pytest.mark.parametrize(
    ("at", "empty"), [(None, True), (5, False), (200 << 20, False), ((256 << 20) - 1, False)]
)
def test_a_large_medium_is_looked_at_here_and_there(tmp_path: Path, at: int | None, empty: bool) -> None:
    path, size = tmp_path / "x.img", 256 << 20
    with path.open("wb") as file:
        file.truncate(size)
        if at is not None:
            file.seek(at // 4096 * 4096)
            file.write(b"x" * 4096 * 64)
            file.truncate(size)
    device = build({"handler": "like_a_device", "next": str(path)}, registry=WithDevice())
    with device as leg:
        assert is_empty(leg, size) is empty


def test_entries_without_a_mark_have_no_vote() -> None:
    entries = (LegEntry(uuid="a", state="in", event=0), LegEntry(uuid="b", state="in", event=1))
    found = Metadata(uuid="m", event=1, session="s", size=512, region_size=65536, legs=entries)
    assert found.voters == {"b"}
    assert found.is_majority({"b"}, state_file=False)
    assert not found.is_majority({"a"}, state_file=True)
