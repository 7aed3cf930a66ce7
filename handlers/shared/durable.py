"""Durable files: names and contents that are there after a crash, whole or not at all."""

import os
import secrets
from contextlib import ExitStack
from pathlib import Path

from vscsihba.handlers.shared.undo import Undo
from vscsihba.handlers.shared.vectored import store


def replace_file(path: Path, content: bytes) -> None:
    """Give a file a new content; after a crash it has the old one or the new one.

    A symbolic link stays: the file that it points to gets the content. The content is first written
    to a file under a random name, which is never one that exists (open(2), ``O_EXCL``), so the owner of
    the directory cannot direct the write to another file.

    Raises:
        OSError: The system refused; the file has the old content, unless it could not get that back, and a
            power cut may leave it with the new one.
    """
    target = Path(os.path.realpath(path))
    before = target.read_bytes() if target.exists() else None
    _replace(target, content)
    with Undo() as failing:
        failing.callback(_put_back, target, before)
        sync_directory(target.parent)
        failing.pop_all()


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory, with its parents, if it is missing; it is there after a crash.

    Raises:
        OSError: The system refused.
    """
    if not path.is_dir():
        make_directory(path.parent, mode)
        path.mkdir(mode=mode, exist_ok=True)
        with Undo() as failing:
            failing.callback(
                path.rmdir
            )  # else the next call would take it for one that is there after a crash
            sync_directory(path.parent)
            failing.pop_all()


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on stable storage, as fsync(2) asks for after making a file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _replace(target: Path, content: bytes) -> None:
    """Give a file a content that is on stable storage; its name need not be yet."""
    fd, private = _create_private(target)
    with ExitStack() as failing:
        failing.callback(private.unlink)
        try:
            store(lambda views, at: os.pwritev(fd, views, at), 0, [memoryview(content)])
            os.fsync(fd)
        finally:
            os.close(fd)
        private.replace(target)
        failing.pop_all()


def _put_back(target: Path, before: bytes | None) -> None:
    """Give a file its former content, None if there was no file."""
    if before is None:
        target.unlink()
    else:
        _replace(target, before)


def _create_private(target: Path) -> tuple[int, Path]:
    """Create a file beside `target` under a name that nobody can know before; return descriptor and path.

    Raises:
        OSError: It cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    private = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")
    return os.open(private, flags, 0o600), private
