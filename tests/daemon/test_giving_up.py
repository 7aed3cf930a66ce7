"""Commands that hold a change up are ended, but not those of a change that is quick."""

import threading

import pytest

from tests.polling import wait_until
from vscsihba.daemon.giving_up import giving_up


def test_a_change_that_takes_long_ends_the_commands_of_its_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscsihba.daemon.giving_up._PAUSE", 0.01)
    asked: list[tuple[int, int]] = []
    with giving_up(["vscsihba0-lun3", "vscsihba7-lun12", "theirs"], lambda *place: asked.append(place), 0.01):
        wait_until(lambda: len(asked) >= 4, lambda: str(asked))
    after = len(asked)
    assert set(asked) == {(0, 3), (7, 12)}
    assert len(asked) == after, "nobody asks once the change is done"
    assert [thread for thread in threading.enumerate() if thread.name == "giving-up"] == []


def test_a_quick_change_ends_nothing() -> None:
    asked: list[tuple[int, int]] = []
    with giving_up(["vscsihba0-lun3"], lambda *place: asked.append(place), 60):
        pass
    assert asked == []


def test_without_a_thread_the_change_is_made_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with giving_up([], lambda _hba, _lun: None):
        pass
    assert "commands that hold a change up are not ended" in caplog.text
