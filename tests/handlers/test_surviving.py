import os
from pathlib import Path

import pytest

from vscsihba.errors import HostError, InUseError
from vscsihba.handlers import surviving
from vscsihba.handlers.surviving import Surviving, forget, recall


def content(name: str) -> bytes:
    found = recall(name)
    assert found is not None
    return found.content


def test_is_there_until_it_is_forgotten() -> None:
    row = Surviving("one")
    row.put(3, b"abc")
    row.put(1, b"x")
    row.close(forget=False)
    assert content("one") == b"\0x\0abc"
    forget("one")
    forget("one")
    assert recall("one") is None


def test_is_forgotten_when_it_was_closed_properly() -> None:
    row = Surviving("one")
    row.put(0, b"abc")
    row.close(forget=True)
    assert recall("one") is None


def test_is_not_found_after_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Surviving("one")
    row.put(0, b"abc")
    row.close(forget=False)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(surviving, "_BOOT_ID", tmp_path / "boot_id")
    assert recall("one") is None


def test_what_cannot_be_stored_is_an_error() -> None:
    row = Surviving("one")
    with pytest.raises(OSError, match="Invalid argument"):
        row.put((1 << 63) - 2, b"abcd")
    row.close(forget=True)


def test_a_directory_that_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "surviving"
    monkeypatch.setattr(surviving, "DIRECTORY", directory)
    directory.mkdir()
    directory.chmod(0o777)
    for use in (Surviving, recall, forget):
        with pytest.raises(HostError, match=r"may be written by other users \(mode 777\); remove it"):
            use("one")
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(HostError, match="is not a directory"):
        Surviving("one")
    directory.unlink()
    assert recall("one") is None
    assert not directory.exists()
    Surviving("one").close(forget=True)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Surviving("one").close(forget=True)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(HostError, match=rf"belongs to user {another - 1}, not to user {another}"):
        Surviving("one")


def test_a_file_that_another_has_put_there_is_refused(tmp_path: Path) -> None:
    row = Surviving("one")
    (path,) = surviving.DIRECTORY.iterdir()
    row.close(forget=True)
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        Surviving("one")
    path.unlink()
    path.touch()
    path.chmod(0o666)
    with pytest.raises(HostError, match="may be written by other users"):
        Surviving("one")


def test_a_refusal_leaves_nothing_open() -> None:
    row = Surviving("one")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(InUseError, match="is in use by another process"):
            Surviving("one")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    row.close(forget=True)
