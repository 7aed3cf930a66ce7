import errno
import os
import stat
from pathlib import Path

import pytest

from tests.handlers.places import open_files
from vscsihba.handlers.shared.durable import make_directory, replace_file, sync_directory


def test_gives_a_new_content(tmp_path: Path) -> None:
    path = tmp_path / "state"
    mask = os.umask(0)
    replace_file(path, b"one")
    replace_file(path, b"two")
    os.umask(mask)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_keeps_the_old_content_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "state"
    before = open_files()
    replace_file(path, b"one")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"two")
    with pytest.raises(OSError, match="No space"):
        sync_directory(tmp_path)
    assert open_files() == before
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"one"])
def test_keeps_the_old_content_when_the_new_name_may_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    path, real = tmp_path / "state", os.fsync

    def unsynced(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    if before:
        path.write_bytes(before)
    monkeypatch.setattr(os, "fsync", unsynced)
    with pytest.raises(OSError, match="error"):
        replace_file(path, b"two")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_a_directory_is_made_with_its_parents_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced, path = os.fsync, list[Path](), tmp_path / "one" / "two"

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        if len(synced) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="error"):
        make_directory(path)
    assert not path.exists()
    make_directory(path)
    make_directory(path)
    assert synced == [tmp_path, tmp_path / "one", tmp_path / "one"]
    assert path.stat().st_mode & 0o777 == 0o755


def test_writes_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    real, link = tmp_path / "real", tmp_path / "etc" / "config"
    link.symlink_to("../real")
    replace_file(link, b"one")
    replace_file(link, b"two")
    assert link.is_symlink()
    assert real.read_bytes() == b"two"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "etc", link, real]


def test_never_writes_to_a_file_that_another_has_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "state"
    victim.write_bytes(b"precious")
    (tmp_path / "state.new").symlink_to(victim)
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    replace_file(path, b"one")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "state.new").is_symlink()
    (tmp_path / ".state.guessed").symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_file(path, b"two")
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"one"


def test_the_name_is_on_stable_storage_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "content")
        fsync(fd)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    replace_file(tmp_path / "state", b"one")
    assert done == ["content", "rename", "directory"]


def test_a_file_is_not_synced_in_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "file")
