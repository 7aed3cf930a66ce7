"""The documents on disk: replaced as a whole, kept in versions, never replaced by an empty one."""

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vscsihba.config.awaited import Awaited
from vscsihba.config.dump import dump
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.config.salvage import Salvage, Unread
from vscsihba.daemon.state import RecordError, State
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError


def document(size: str = "1MiB") -> Document:
    stacks = {"a": {"handler": "memory", "size": size}}
    hbas = [{"id": 0, "luns": [{"lun": 0, "backstore": "a"}]}]
    return read({"version": 1, "backstores": stacks, "hbas": hbas}, Path("/"))


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / "run").mkdir()
    return State(tmp_path / "run", tmp_path / "etc" / "config.json", tmp_path / "lib" / "devices.json")


def versions(state: State) -> list[Path]:
    return sorted((state.saved.parent / "versions").glob("*"))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask while the context is entered."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_nothing_is_remembered_at_first(state: State) -> None:
    assert state.running() is None
    assert state.to_restore() == Salvage(Document())


def test_the_running_document_is_recorded_and_read_again(state: State) -> None:
    for size in ("1MiB", "2MiB"):
        state.note(document(size))
        assert state.running() == document(size)
    assert sorted(path.name for path in (state.saved.parents[1] / "run").iterdir()) == ["running.json"]


def test_the_saved_document_is_restored(state: State) -> None:
    assert state.save(document()) == state.saved
    assert state.to_restore().document == load(state.saved) == document()


def test_another_file_can_be_named(state: State, tmp_path: Path) -> None:
    other = tmp_path / "new" / "er" / "mine.json"
    with umask(0):
        assert state.save(document(), other) == other
    assert stat.S_IMODE(other.parent.stat().st_mode) == 0o755
    assert load(other) == document()
    assert state.to_restore() == Salvage(Document())


def test_the_last_ten_versions_are_kept(state: State) -> None:
    state.save(document(), state.saved.with_name("config-old.json"))
    state.save(document("2MiB"), state.saved.with_name("config-old.json"))
    (other,) = versions(state)
    for number in range(15):
        state.save(document(f"{number + 1}MiB"))
    kept = [
        json.loads(path.read_text())["backstores"]["a"]["size"] for path in versions(state) if path != other
    ]
    assert kept == [f"{number}MiB" for number in range(5, 15)]
    assert other.exists(), "a version of another document"


def test_versions_are_private_and_named_by_their_time(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_005)
    state.save(document())
    state.save(document("2MiB"))
    (version,) = versions(state)
    assert version.name == "config-20231114T221320.000000005.json"
    assert stat.S_IMODE(version.parent.stat().st_mode) == 0o700, "a document may name key files"


def test_a_file_that_another_program_removes_is_no_error(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(11):
        state.save(document(f"{number + 1}MiB"))
    left = state.saved.parents[1] / "run" / f".running.json.{'a' * 16}"
    left.write_text("{")
    real = Path.unlink

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        real(path, missing_ok=True)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    state.save(document("12MiB"))
    assert len(versions(state)) == 10
    with state.held():
        assert not left.exists()
    assert caplog.text == ""


def test_a_version_that_cannot_be_kept_leaves_the_document(state: State) -> None:
    state.save(document())
    (state.saved.parent / "versions").write_text("")
    with pytest.raises(HostError, match="versions: File exists"):
        state.save(document("2MiB"))
    assert load(state.saved) == document()


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
    assert state.save(Document()) == state.saved, "nothing is lost"


def test_a_file_that_is_no_document_is_not_replaced(state: State, tmp_path: Path) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text('{"diary": []}')
    with pytest.raises(UsageError, match=r"precious\.json is not a document"):
        state.save(document(), precious)
    assert precious.read_text() == '{"diary": []}'
    state.save(document(), precious, force=True)
    assert load(precious) == document()


def test_a_file_that_cannot_be_written_is_one_clear_line(state: State, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"/file/x\.json: (Not a directory|File exists)"):
        state.save(document(), tmp_path / "file" / "x.json")


def test_a_damaged_record_is_an_error_with_its_place(state: State) -> None:
    (state.saved.parents[1] / "run" / "running.json").write_text('{"version": 1, "hbaz": []}')
    with pytest.raises(ConfigError, match=r"\$\.hbaz: unknown key"):
        state.running()


def test_there_is_one_service(state: State) -> None:
    with state.held():
        with pytest.raises(InUseError, match=rf"the service is already running as process {os.getpid()};"):
            state.held().__enter__()
        with State(state.saved.parent, state.saved, state.saved.parent / "devices.json").held():
            pass
    with state.held():
        pass


def test_the_run_directory_is_made_for_the_members_of_a_group(tmp_path: Path) -> None:
    run = tmp_path / "var" / "run"
    with umask(0o077), State(run, tmp_path / "config.json").held():
        assert stat.S_IMODE(run.stat().st_mode) == 0o755
    (run / "daemon.lock").unlink()
    with umask(0), State(run, tmp_path / "config.json").held():
        assert stat.S_IMODE((run / "daemon.lock").stat().st_mode) == 0o600


def test_a_run_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(HostError, match=r"run/daemon\.lock: File exists"):
        State(tmp_path / "run", tmp_path / "config.json").held().__enter__()


def test_a_failure_of_the_service_is_not_taken_for_another_service(state: State) -> None:
    with pytest.raises(BlockingIOError), state.held():
        raise BlockingIOError


def test_changes_are_known_until_they_have_ended(state: State) -> None:
    assert state.unfinished() is None
    state.begin(document("1MiB"), document("2MiB"))
    assert state.unfinished() == (document("1MiB"), document("2MiB"))
    state.end()
    state.end()
    assert state.unfinished() is None


def test_entries_that_are_not_restored_are_known_until_they_are(state: State) -> None:
    assert state.awaited() == Awaited()
    awaited = Awaited((Unread("no such file", 0, 1, "a"),), ((0, 0),))
    state.note_awaited(awaited)
    assert state.awaited() == awaited
    for _ in range(2):
        state.note_awaited(Awaited())
        assert state.awaited() == Awaited()


@pytest.mark.parametrize("name", ["changing", "awaited"])
def test_a_record_that_cannot_be_read_is_one_clear_line(state: State, name: str) -> None:
    path = state.saved.parents[1] / "run" / f"{name}.json"
    read = {"changing": state.unfinished, "awaited": state.awaited}[name]
    path.write_text("{")
    with pytest.raises(HostError, match=rf"{name}\.json: .*truncated"):
        read()
    path.unlink()
    path.mkdir()
    for act in (read, state.end if name == "changing" else partial(state.note_awaited, Awaited())):
        with pytest.raises(HostError, match=rf"{name}\.json: .*Is a directory"):
            act()


def test_a_folder_that_another_program_creates_is_used(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.mkdir

    def mkdir(path: Path, **options: Any) -> None:
        real(path)
        real(path, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    state.save(document())
    assert load(state.saved) == document()


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


def test_unfinished_files_of_a_killed_service_are_removed(state: State) -> None:
    state.save(document())
    run, etc = state.saved.parents[1] / "run", state.saved.parent
    for left in (run / f".running.json.{'a' * 16}", etc / f".config.json.{'0' * 16}"):
        left.write_text("{")
    (run / ".running.json.mine").write_text("somebody else's")
    with state.held():
        pass
    assert sorted(path.name for path in run.iterdir()) == [".running.json.mine", "daemon.lock"]
    assert sorted(path.name for path in etc.iterdir()) == ["config.json"]


def test_unfinished_files_of_an_unusual_name_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path, tmp_path / "etc" / f"[disks]-{'x' * 100}.json")

    def fail(*_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", fail)
        killed.setattr(Path, "unlink", fail)
        with pytest.raises(KeyboardInterrupt):
            state.save(document())
    assert len(list(state.saved.parent.iterdir())) == 1
    with state.held():
        assert list(state.saved.parent.iterdir()) == []


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


@pytest.mark.parametrize("name", ["running.json", "changing.json", "awaited.json"])
def test_a_record_that_cannot_be_read_now_is_not_taken_for_a_missing_one(state: State, name: str) -> None:
    (state._run / name).mkdir(parents=True)  # reading a directory fails
    read = {"running.json": state.running, "changing.json": state.unfinished, "awaited.json": state.awaited}
    with pytest.raises(RecordError, match=name):
        read[name]()


def test_devices_that_cannot_be_read_now_are_not_forgotten(state: State) -> None:
    state._devices.mkdir(parents=True)
    assert state.devices_to_check() == {}
    with pytest.raises(RecordError, match=r"devices\.json"):
        state.note_devices({})


def test_a_saved_document_that_cannot_be_looked_up_is_awaited(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    state.save(document())
    monkeypatch.setattr(os, "lstat", fail)
    monkeypatch.setattr(Path, "open", fail)
    assert not state.to_restore().readable
