"""Copies, on the file system that the tests have; those that share storage are in tests/vm."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vscsihba.handlers.file import reflink

MiB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """A file of 4 MiB with a hole in it, and an odd end."""
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.write(os.urandom(MiB))
        file.seek(3 * MiB)
        file.write(os.urandom(MiB + 123))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def cannot(*_arguments: object) -> bool:
    return False


def by_hand(*_arguments: object) -> None:
    return None


WAYS: list[dict[str, Callable[..., object]]] = [
    {},
    {"_done": cannot},
    {"_done": cannot, "_in_kernel": by_hand},
]


@pytest.fixture(params=WAYS, ids=["best", "kernel", "hand"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only some of the ways to copy."""
    for name, stand_in in request.param.items():
        monkeypatch.setattr(reflink, name, stand_in)


def content(fd: int) -> bytes:
    return os.pread(fd, 1 << 30, 0)


def test_a_copy_has_the_same_bytes_and_holes(source: int, tmp_path: Path, way: None) -> None:
    reflink.copy_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content(source)
    assert (tmp_path / "copy").stat().st_blocks * 512 < 3 * MiB
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 2 * MiB + 5])
def test_a_range_is_copied_to_another_place(source: int, tmp_path: Path, way: None, length: int) -> None:
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(target, b"x" * 4 * MiB, 0)
        reflink.copy_range(source, 512, length, target, 1024)
        expected = b"x" * 1024 + content(source)[512 : 512 + length]
        assert content(target) == expected + b"x" * (4 * MiB - len(expected))
    finally:
        os.close(target)


def test_a_source_that_ends_is_an_error(source: int, tmp_path: Path, way: None) -> None:
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(OSError, match=f"ends at byte {4 * MiB + 123}") as caught:
            reflink.copy_range(source, 4 * MiB, 512, target, 0)
        assert caught.value.errno == errno.EIO
    finally:
        os.close(target)


def test_a_name_that_is_taken_is_left_alone(source: int, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(FileExistsError):
        reflink.copy_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]


def test_nothing_is_left_of_a_copy_that_fails(
    source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(reflink, "_done", full)
    with pytest.raises(OSError, match="full"):
        reflink.copy_file(source, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_links(
    source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    if taken:
        (tmp_path / "copy").write_text("mine")
        with pytest.raises(FileExistsError):
            reflink.copy_file(source, tmp_path / "copy")
        assert (tmp_path / "copy").read_text() == "mine"
    else:
        reflink.copy_file(source, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]
