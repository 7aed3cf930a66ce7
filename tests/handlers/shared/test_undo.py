"""Undo: the first failure is the one that is raised."""

import errno
from pathlib import Path
from unittest import mock

import pytest

from vscsihba.errors import FlushError
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.shared.undo import Undo
from vscsihba.handlers.stack import build


def fail() -> None:
    raise OSError(errno.EIO, "it cannot be closed")


def test_everything_is_taken_back_and_the_first_failure_is_raised() -> None:
    taken_back: list[int] = []

    def begin() -> None:
        with Undo() as undo:
            undo.callback(taken_back.append, 1)
            undo.callback(fail)
            undo.callback(taken_back.append, 2)
            raise FlushError(errno.EIO, "pages are gone")

    with pytest.raises(FlushError, match="pages are gone"):
        begin()
    assert taken_back == [2, 1]


def test_without_a_failure_before_that_of_closing_is_raised() -> None:
    with Undo() as undo:
        undo.callback(fail)
        kept = undo.pop_all()
    with pytest.raises(OSError, match="cannot be closed"):
        kept.close()


def test_a_disk_tells_that_a_flush_has_failed_though_closing_failed_then(tmp_path: Path) -> None:
    base = tmp_path / "base.img"
    base.write_bytes(bytes(65536))
    document = {"handler": "cow", "path": str(tmp_path / "over"), "create": True, "next": str(base)}
    with build(document):
        pass
    real = FileHandler.close

    def close(handler: FileHandler) -> None:
        real(handler)
        fail()

    lost = FlushError(errno.EIO, "pages are gone")
    with (
        mock.patch.object(Overlay, "begin", side_effect=lost),
        mock.patch.object(FileHandler, "close", close),
        pytest.raises(FlushError, match="pages are gone"),
    ):
        build(document).open()
