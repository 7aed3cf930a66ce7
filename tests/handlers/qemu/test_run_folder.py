import os
from pathlib import Path

import pytest

from vscsihba.errors import InUseError
from vscsihba.handlers.qemu.run_folder import RunFolder


def folder(*, image: str = "a", read_only: bool = False) -> RunFolder:
    return RunFolder(image, read_only=read_only, patience=0.1)


@pytest.fixture
def left(own_tmpfs_directory: Path) -> RunFolder:
    """Return the folder of a process that was killed; its daemon still lives."""
    killed = folder()
    daemon = os.dup(killed.lock)
    os.close(killed.lock)
    killed.lock = daemon
    return killed


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("qemu.*/")]


def test_only_its_owner_can_enter(own_tmpfs_directory: Path) -> None:
    made = folder()
    assert made.path.stat().st_mode & 0o777 == 0o700
    assert made.path.parent == own_tmpfs_directory
    made.close()
    assert names(own_tmpfs_directory) == []


def test_waits_for_the_daemon_of_a_killed_process(left: RunFolder) -> None:
    with pytest.raises(InUseError, match="daemon of a killed process"):
        folder()
    with pytest.raises(InUseError):
        folder(read_only=True)
    folder(image="b").close()
    os.close(left.lock)
    folder().close()
    assert not left.path.exists()


def test_readers_share(own_tmpfs_directory: Path) -> None:
    one, two = folder(read_only=True), folder(read_only=True)
    with pytest.raises(InUseError):
        folder()
    one.close()
    two.close()
    assert names(own_tmpfs_directory) == []


def test_any_disk_removes_what_killed_processes_have_left(left: RunFolder, own_tmpfs_directory: Path) -> None:
    os.close(left.lock)
    other = folder(image="b")
    assert names(own_tmpfs_directory) == [other.path.name]
    other.close()


def test_a_folder_stays_as_long_as_its_daemon_lives() -> None:
    made = folder()
    daemon = os.dup(made.lock)
    made.close()
    with pytest.raises(InUseError):
        folder()
    os.close(daemon)
    folder().close()
    assert not made.path.exists()
