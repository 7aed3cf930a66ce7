"""The saved state of a unit: after a crash, the complete old or the complete new one."""

from pathlib import Path

import pytest

from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.errors import HostError


def test_nothing_was_saved_is_empty(tmp_path: Path) -> None:
    assert UnitState("abc", tmp_path).load() == b""


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    state = UnitState("abc", tmp_path / "made" / "when needed")
    state.save(b"one")
    state.save(b"two")
    assert state.load() == b"two"
    assert [path.name for path in (tmp_path / "made" / "when needed").iterdir()] == ["abc.json"]


def test_units_do_not_share(tmp_path: Path) -> None:
    UnitState("abc", tmp_path).save(b"one")
    assert UnitState("abd", tmp_path).load() == b""


@pytest.mark.parametrize("serial", ["../abc", "a/b", ".", "s" * 200, "with a blank"])
def test_any_serial_number_has_a_file_of_its_own(tmp_path: Path, serial: str) -> None:
    UnitState(serial, tmp_path / "units").save(b"one")
    UnitState(serial + "x", tmp_path / "units").save(b"two")
    assert UnitState(serial, tmp_path / "units").load() == b"one"
    assert len(list((tmp_path / "units").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["units"]


def test_a_failure_to_save_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = UnitState("abc", tmp_path)
    state.save(b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        state.save(b"new")
    assert state.load() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "abc.json").mkdir()
    with pytest.raises(HostError, match=r"abc\.json: Is a directory"):
        UnitState("abc", tmp_path).load()
