"""The note of a session: states that survive the process, and those that a failed flush takes back."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vscsihba.handlers.cow.format import DATA, ZERO
from vscsihba.handlers.cow.overlay_note import place_of
from vscsihba.handlers.cow.state_note import StateNote, _runs
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore, recall

SESSION = "session"


@pytest.fixture
def note(tmp_path: Path) -> Iterator[StateNote]:
    (tmp_path / "over.cow").touch()
    path = str(tmp_path / "over.cow")
    found = StateNote(SESSION, place_of(path, os.stat(path)))  # noqa: PTH116
    assert found.put_some(0, 8, DATA) == 8
    assert found.put_some(8, 10, ZERO) == 2
    yield found
    found.close(forget=True)
    assert recall(SESSION) is None


def noted() -> tuple[list[int], bool]:
    """Return the states that a later process finds, each plus one, and whether the flag is set."""
    found = recall(SESSION)
    assert found is not None
    return list(found.content), found.flag


DATA_NOTED, ZERO_NOTED = DATA + 1, ZERO + 1
ALL = [DATA_NOTED] * 8 + [ZERO_NOTED] * 2


def test_the_flag_covers_all_until_the_clusters_are_taken_back(note: StateNote) -> None:
    assert noted() == (ALL, False)
    note.flag()
    assert noted() == (ALL, True)
    note.take_back([5, 2, 1])
    kept = [DATA_NOTED, 0, 0, DATA_NOTED, DATA_NOTED, 0, *ALL[6:]]
    assert noted() == (kept, False)
    assert note.is_usable
    note.put_some(1, 2, DATA)
    note.take_back([1])
    note.withdraw()
    assert noted() == ([DATA_NOTED, DATA_NOTED, *kept[2:]], False), "no flush has failed since"


def test_nothing_is_taken_back_before_a_flush_has_failed(note: StateNote) -> None:
    note.take_back([1])
    note.withdraw()
    assert noted() == (ALL, False)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), MemoryError()])
def test_a_note_that_cannot_be_flagged_goes_at_once_or_later(
    note: StateNote, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "set_flag", fails)
        patch.setattr(TmpfsStore, "discard", lambda _: None)
        note.flag()
    assert not note.is_usable
    note.take_back([1])
    assert noted() == (ALL, False)
    note.withdraw()
    assert recall(SESSION) is None


def test_a_note_that_cannot_be_flagged_is_removed(note: StateNote, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(TmpfsStore, "set_flag", fails)
    note.flag()
    assert recall(SESSION) is None


@pytest.mark.parametrize("verb", ["put", "set_flag"])
def test_a_note_from_which_nothing_can_be_taken_back_keeps_the_flag(
    note: StateNote, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "broken")

    note.flag()
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, verb, fails)
        note.take_back([1])
    assert not note.is_usable
    note.withdraw()
    assert noted()[1]


def test_room_is_reserved_for_each_cluster(note: StateNote, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved: list[tuple[int, int]] = []
    monkeypatch.setattr(linux, "allocate", lambda _fd, at, length: reserved.append((at - 4096, length)))
    note.reserve(4000, 4096)
    note.reserve(4000, 4200)
    assert reserved == [(4000, 200)], "what lies in one page is stored as a whole"


def test_runs_of_clusters() -> None:
    assert list(_runs([])) == []
    assert list(_runs([0])) == [(0, 1)]
    assert list(_runs([0, 1, 2, 4, 7, 8])) == [(0, 3), (4, 5), (7, 9)]
