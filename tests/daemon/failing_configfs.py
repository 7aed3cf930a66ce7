"""A configfs of files in which an operation on iSCSI targets fails, or a process is killed before it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EIO
from pathlib import Path
from typing import Any

import pytest
from rtslib_fb import target as rtslib_target

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import paths


class Killed(BaseException):
    """The process was killed."""


class FailingConfigfs:
    """Counts the operations that change targets, and lets one of them fail.

    Args:
        fake: The configfs.
        monkeypatch: Puts the counting functions into place.

    Attributes:
        count: Operations since `at` was called.
        struck: The path of the operation that has failed.
    """

    def __init__(self, fake: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.struck = Path()
        self._fake = fake
        self._number: int | None = None
        self._kill = False
        self._dead = False
        for owner, name in (
            (Path, "mkdir"),
            (Path, "rmdir"),
            (Path, "unlink"),
            (os, "symlink"),
            (rtslib_target, "fwrite"),
            (paths, "_write"),
        ):
            place = 1 if name == "symlink" else 0
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name), place))

    def _counting(self, function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def counted(*words: Any, **options: Any) -> Any:
            path = Path(words[place])
            missing = (
                function.__name__ == "write" and not path.exists()
            )  # rtslib writes to files of newer kernels
            if (self._fake.iscsi in path.parents or "alua" in path.parts) and not missing:
                self._enter(path)
            return function(*words, **options)

        return counted

    def _enter(self, path: Path) -> None:
        if self._dead:
            raise Killed
        self.count += 1
        if self.count - 1 != self._number:
            return
        self.struck = path
        if self._kill:
            self._dead = True
            raise Killed
        raise OSError(EIO, os.strerror(EIO), str(path))

    @contextmanager
    def at(self, number: int | None, *, kill: bool = False) -> Iterator[None]:
        """Let the operation of that number fail, counted from 0, or kill the process before it."""
        self.count, self._number, self._kill = 0, number, kill
        try:
            yield
        finally:
            self._number, self._dead = None, False

    def tree(self) -> dict[str, str]:
        """Return every folder, link and value of all targets."""
        found = {}
        for path in sorted(self._fake.iscsi.rglob("*")):
            name = path.relative_to(self._fake.iscsi)
            if path.is_symlink():
                found[str(name.with_name("LINK"))] = str(path.resolve())
            else:
                found[str(name)] = "" if path.is_dir() else _text(path)
        return found


def _text(path: Path) -> str:
    text = path.read_text().strip()
    return "" if text == "NULL" else text
