"""Creating a file that is to be a disk: empty or as a copy of another one; enlarging a file.

What is made survives a crash, wholly or not at all. Which file is wanted, and when, is not
this module's business.
"""

import os
from contextlib import ExitStack, suppress
from pathlib import Path

from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.file import reflink
from vscsihba.handlers.shared.durable import sync_directory
from vscsihba.handlers.shared.vectored import store


def create(path: str, size: int, preallocation: str = "none") -> None:
    """Make a file of `size` bytes that survives a crash; no one else may read it.

    Args:
        path: Where.
        size: Bytes.
        preallocation: ``none`` for a sparse file, ``reserve`` to set its storage aside,
            ``full`` to write it full of zeroes.

    Raises:
        UsageError, HostError: It cannot be made; nothing is left of it then.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_path.explain(path, error) from error
    try:
        with ExitStack() as failing:
            failing.callback(Path(path).unlink)
            os.ftruncate(fd, size)
            if preallocation == "reserve":
                os.posix_fallocate(fd, 0, size)
            elif preallocation == "full":
                _write_full(fd, size)
            os.fsync(fd)
            sync_directory(Path(path).parent)
            failing.pop_all()
    except OSError as error:
        raise file_path.explain(path, error) from error
    finally:
        os.close(fd)


def keep(path: str) -> None:
    """Put the name of a file that was to be made on stable storage, as its maker may have been killed before.

    Raises:
        UsageError, HostError: The system refused.
    """
    try:
        with suppress(PermissionError):  # whoever makes a file reads its directory, too
            sync_directory(Path(os.path.realpath(path)).parent)
    except OSError as error:
        raise file_path.explain(path, error) from error


def copy(template: str, path: str) -> None:
    """Make a file that is a copy of another one, which must not be in use for writing meanwhile.

    Raises:
        UsageError: There is no such template, or no room for a copy.
        InUseError: A disk writes to the template.
        HostError: The copy cannot be made; nothing is left of it then.
    """
    source = file_path.claim(template, read_only=True, shared=True)
    try:
        reflink.copy_file(source, Path(path))
    except OSError as error:
        raise file_path.explain(path, error) from error
    finally:
        os.close(source)


def enlarge(fd: int, path: str, size: int) -> None:
    """Enlarge an open file so that the new size survives a crash; the new bytes are a hole.

    Raises:
        HostError: The file system cannot hold it; nothing has changed.
    """
    before = os.fstat(fd).st_size
    try:
        with ExitStack() as failing:
            failing.callback(os.ftruncate, fd, before)
            os.ftruncate(fd, size)
            os.fsync(fd)
            failing.pop_all()
    except OSError as error:
        raise file_path.explain(path, error) from error


def _write_full(fd: int, size: int) -> None:
    zeroes = memoryview(bytes(1 << 20))
    for offset in range(0, size, len(zeroes)):
        piece = zeroes[: size - offset]
        store(lambda part, at: os.pwritev(fd, part, at), offset, [piece])
