"""Durable files: names and contents that are there after a crash, whole or not at all."""

import os
import secrets
from contextlib import ExitStack
from pathlib import Path

from vscsihba.handlers.shared.vectored import store


def replace_file(path: Path, content: bytes) -> None:
    """Give a file a new content; after a crash it has the old one or the new one.

    A symbolic link stays: the file that it points to gets the content. The content is first written
    to a file under a random name, which is never one that exists (open(2), ``O_EXCL``), so the owner of
    the directory cannot direct the write to another file.

    Raises:
        OSError: The system refused; the old content is still there.
    """
    target = Path(os.path.realpath(path))
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
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on stable storage, as fsync(2) asks for after making a file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create_private(target: Path) -> tuple[int, Path]:
    """Create a file beside `target` under a name that nobody can know before; return descriptor and path.

    Raises:
        OSError: It cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    private = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")
    return os.open(private, flags, 0o600), private
