"""Forks of a mirror: legs that were opened without each other while little could be recorded."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.handlers.mirror.test_mirror import CONTENT, SIZE, handler_of, whole
from tests.polling import wait_until
from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.mirror import state as mirror_state
from vscsihba.handlers.mirror.mark import write_mark
from vscsihba.handlers.mirror.metadata import Metadata
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read, write

STATE = "mirror.state"
BROKEN = OSError(errno.EIO, "broken")


def mirror_of(directory: Path, legs: str) -> dict[str, Any]:
    return {
        "handler": "mirror",
        "path": str(directory / STATE),
        "create": True,
        "region_size": 65536,
        "retry": 0,
        "legs": [str(directory / f"{name}.img") for name in legs],
    }


def made(directory: Path, legs: str) -> dict[str, Any]:
    """Make a mirror whose legs are equal, and close it."""
    for name in legs:
        (directory / f"{name}.img").write_bytes(CONTENT[:SIZE] if name == "a" else bytes(SIZE))
    document = mirror_of(directory, legs)
    with build(document) as disk:
        wait_until(lambda: whole(disk))
    return document


@contextmanager
def away(directory: Path, *names: str) -> Iterator[None]:
    """Let files of a directory be missing."""
    aside = directory / "aside"
    aside.mkdir()
    for name in names:
        (directory / name).rename(aside / name)
    yield
    for name in names:
        (directory / name).unlink(missing_ok=True)
        (aside / name).rename(directory / name)
    aside.rmdir()


@contextmanager
def unwritable(*legs: str) -> Iterator[None]:
    """Let neither the state file nor the marks of some legs be written."""

    def write_unless_broken(leg: Handler, metadata: Metadata) -> None:
        if any(f"/{name}.img" in leg.identity for name in legs):
            raise BROKEN
        write_mark(leg, metadata)

    with ExitStack() as stack:
        stack.enter_context(mock.patch("vscsihba.handlers.mirror.leg.write_mark", write_unless_broken))
        stack.enter_context(mock.patch.object(mirror_state.MirrorState, "save", side_effect=BROKEN))
        yield


def fail_to_open(document: Document) -> None:
    with pytest.raises(OSError, match=r"cannot be recorded by a majority|broken"):
        build(document).open()


def change(document: Document, text: bytes) -> None:
    """Write to the disk and flush it, in a session of its own."""
    with build(document) as disk:
        write(disk, 0, text)
        disk.flush()


def images(directory: Path, legs: str) -> list[bytes]:
    return [(directory / f"{name}.img").read_bytes() for name in legs]


def test_a_leg_that_alone_has_marks_of_openings_that_failed_is_not_believed(tmp_path: Path) -> None:
    document = made(tmp_path, "ab")
    with unwritable("b"):
        for _ in range(9):  # each opening leaves a higher event count in the mark of leg a only
            fail_to_open(document)
    with away(tmp_path, "a.img"):
        change(document, b"new")
    with build(document) as disk:
        assert read(disk, 0, 3) == b"new"
        wait_until(lambda: whole(disk))
        assert read(disk, 0, 3) == b"new"
    first, second = images(tmp_path, "ab")
    assert first[:3] == second[:3] == b"new"


@pytest.mark.parametrize("is_new", [False, True])
def test_a_leg_whose_return_could_not_be_recorded_comes_back(tmp_path: Path, is_new: bool) -> None:
    document = made(tmp_path, "ab")
    with build({**document, "retry": 0.05}) as disk:
        members = handler_of(disk)._members
        if is_new:
            (tmp_path / "b.img").write_bytes(bytes(SIZE))
        members.judge(members.legs, {members.legs[1]: OSError(errno.EIO, "gone")})
        members.keep()
        with unwritable("a"):
            write(disk, 65536, b"missed")
            wait_until(lambda: members.legs[1].error == "broken")
        wait_until(lambda: whole(disk))
        write(disk, 0, b"new")
    first, second = images(tmp_path, "ab")
    assert first[:SIZE] == second[:SIZE]
    assert (first[:3], first[65536:65542]) == (b"new", b"missed")


def test_of_two_legs_that_have_gone_on_without_each_other_none_is_believed_alone(tmp_path: Path) -> None:
    document = made(tmp_path, "ab")
    shutil.copy(tmp_path / STATE, tmp_path / "older")
    with unwritable("b"):
        for _ in range(9):
            fail_to_open(document)
    with away(tmp_path, "a.img"):
        change(document, b"new")
    (tmp_path / STATE).write_bytes((tmp_path / "older").read_bytes())
    before = images(tmp_path, "ab")
    with pytest.raises(HostError, match="do not decide"):
        build(document).open()
    assert images(tmp_path, "ab") == before


@pytest.mark.parametrize(
    ("legs", "missing", "failing", "later"), [("abcd", "d", "c", "cd"), ("abcde", "de", "c", "cde")]
)
def test_a_change_that_has_not_counted_is_not_believed_when_those_that_went_on_are_lost(
    tmp_path: Path, legs: str, missing: str, failing: str, later: str
) -> None:
    document = made(tmp_path, legs)
    with away(tmp_path, *(f"{name}.img" for name in missing)), unwritable(failing):
        fail_to_open(document)  # legs a and b have a mark now by which they are most of those that are in
    with away(tmp_path, "a.img", "b.img"):
        change(document, b"new")
    lost = [f"{name}.img" for name in later]
    before = images(tmp_path, "ab")
    with away(tmp_path, STATE, *lost):
        with pytest.raises(HostError, match="do not decide"):
            build(mirror_of(tmp_path, "ab")).open()
        assert images(tmp_path, "ab") == before
    with build(document) as disk:
        assert read(disk, 0, 3) == b"new"
