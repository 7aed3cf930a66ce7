"""What a service remembers: replaced as a whole, kept in versions, and never lost to an empty one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vscsihba.config.dump import dump
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.config.salvage import Salvage
from vscsihba.daemon.state import KEPT, State
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError


def document(size: str = "1MiB") -> Document:
    stacks = {"a": {"handler": "memory", "size": size}}
    hbas = [{"id": 0, "luns": [{"lun": 0, "backstore": "a"}]}]
    return read({"version": 1, "backstores": stacks, "hbas": hbas}, Path("/"))


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / "run").mkdir()
    return State(tmp_path / "run", tmp_path / "etc" / "config.json")


def versions(state: State) -> list[Path]:
    return sorted((state.saved.parent / "versions").glob("*"))


def test_nothing_is_remembered_at_first(state: State) -> None:
    assert state.running() is None
    assert state.to_restore() == Salvage(Document())


def test_what_runs_is_noted_and_read_again(state: State) -> None:
    for size in ("1MiB", "2MiB"):
        state.note(document(size))
        assert state.running() == document(size)
    assert sorted(path.name for path in (state.saved.parents[1] / "run").iterdir()) == ["running.json"]


def test_what_is_saved_is_restored(state: State) -> None:
    assert state.save(document()) == state.saved
    assert state.to_restore().document == load(state.saved) == document()


def test_another_file_can_be_named(state: State, tmp_path: Path) -> None:
    other = tmp_path / "new" / "mine.json"
    assert state.save(document(), other) == other
    assert load(other) == document()
    assert state.to_restore() == Salvage(Document())


def test_the_last_ten_versions_are_kept(state: State) -> None:
    for number in range(KEPT + 5):
        state.save(document(f"{number + 1}MiB"))
    kept = [json.loads(path.read_text())["backstores"]["a"]["size"] for path in versions(state)]
    assert kept == [f"{number}MiB" for number in range(5, KEPT + 5)]


def test_the_same_again_makes_no_version(state: State) -> None:
    state.save(document())
    state.save(document())
    assert versions(state) == []


def test_an_empty_document_does_not_replace_a_good_one(state: State) -> None:
    state.save(document())
    with pytest.raises(UsageError, match=r"nothing runs, and .*config\.json has 1 HBA and 1 backstore;"):
        state.save(Document())
    assert state.to_restore().document == document()
    state.save(Document(), force=True)
    assert state.to_restore().document == Document()
    assert [load(path) for path in versions(state)] == [document()]


def test_a_file_that_is_no_document_is_not_replaced(state: State, tmp_path: Path) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text('{"diary": []}')
    with pytest.raises(UsageError, match=r"precious\.json is no document"):
        state.save(document(), precious)
    assert precious.read_text() == '{"diary": []}'
    state.save(document(), precious, force=True)
    assert load(precious) == document()


def test_a_file_that_cannot_be_written_is_one_clear_line(state: State, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"/file/x\.json: (Not a directory|File exists)"):
        state.save(document(), tmp_path / "file" / "x.json")


def test_a_broken_note_is_told_with_its_place(state: State) -> None:
    (state.saved.parents[1] / "run" / "running.json").write_text('{"version": 1, "hbaz": []}')
    with pytest.raises(ConfigError, match=r"\$\.hbaz: unknown key"):
        state.running()


def test_there_is_one_service(state: State) -> None:
    with state.held():
        with pytest.raises(InUseError, match="the service runs already, as process"):
            state.held().__enter__()
        with State(state.saved.parent, state.saved).held():
            pass
    with state.held():
        pass


def test_an_old_document_is_there_while_a_new_one_is_written(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.save(document())

    def fail(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(HostError, match="No space left"):
        state.save(document("2MiB"))
    assert state.saved.read_text() == dump(document())


def test_what_a_killed_service_left_half_written_is_removed(state: State) -> None:
    state.save(document())
    run, etc = state.saved.parents[1] / "run", state.saved.parent
    for left in (run / f".running.json.{'a' * 16}", etc / f".config.json.{'0' * 16}"):
        left.write_text("{")
    (run / ".running.json.mine").write_text("somebody else's")
    with state.held():
        pass
    assert sorted(path.name for path in run.iterdir()) == [".running.json.mine", "daemon.lock"]
    assert sorted(path.name for path in etc.iterdir()) == ["config.json"]


def test_a_link_to_the_saved_document_stays_one(state: State, tmp_path: Path) -> None:
    target = tmp_path / "shared" / "disks.json"
    target.parent.mkdir()
    state.saved.parent.mkdir()
    state.saved.symlink_to(target)
    for size in ("1MiB", "2MiB"):
        state.save(document(size))
        assert state.saved.is_symlink()
        assert load(target) == document(size)


def test_every_new_name_is_synced_with_its_directory(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")  # noqa: PTH115
        real_fsync(fd)

    def link(*words: Any, **options: Any) -> None:
        done.append("link")
        real_link(*words, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    state.save(document("1MiB"))
    assert done[0] == f"sync {state.saved.parents[1].name}", "the new directory's name"
    assert done[-1] == "sync etc"
    done.clear()
    state.save(document("2MiB"))
    assert done[done.index("link") + 1] == "sync versions", "the version is safe before it is replaced"
    assert done[-1] == "sync etc"
    done.clear()
    state.note(document("2MiB"))
    assert done[-1] == "sync run"
