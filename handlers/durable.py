"""Durable files: names and contents that are there after a crash, whole or not at all."""

import os
from pathlib import Path

from vscsihba.handlers.vectored import transfer


def replace_file(path: Path, content: bytes) -> None:
    """Give a file a new content; after a crash it has the old one or the new one.

    Raises:
        OSError: The system refused; the old content is still there.
    """
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            transfer(lambda views, at: os.pwritev(fd, views, at), 0, [memoryview(content)])
            os.fsync(fd)
        finally:
            os.close(fd)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on stable storage, as fsync(2) asks for after making a file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
