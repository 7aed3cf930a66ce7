"""The files that a capture is written to: one, a pipe, or a ring of several with a limited size.

Every file holds whole blocks, even after the disk has become full.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from vscsihba.errors import HostError

_MODE: Final = 0o600
"""Captures hold data of disks: nobody but their owner reads them."""


class CaptureFiles:
    """Takes the blocks of a capture, while the context is entered.

    Args:
        path: The file; None: standard output. In a ring, its name gets a number: ``disk.pcapng`` becomes
            ``disk_00001.pcapng``.
        most_files: Files of the ring; the oldest is removed when there is one more. 0: one file only.
        most_bytes: Bytes after which a file of the ring is full.
    """

    def __init__(self, path: Path | None, *, most_files: int = 0, most_bytes: int = 0) -> None:
        self._path = path
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._number = 0
        self._written = 0
        self._fd = -1

    @property
    def name(self) -> str:
        """Name of the present file, for messages."""
        return "standard output" if self._path is None else str(self._named(self._number))

    def __enter__(self) -> Self:
        self.next_file()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def _named(self, number: int) -> Path:
        assert self._path is not None  # noqa: S101 - only files have names
        if not self._most_files:
            return self._path
        return self._path.with_name(f"{self._path.stem}_{number:05}{self._path.suffix}")

    def next_file(self) -> None:
        """Begin a new file, and remove the oldest of a ring.

        Raises:
            HostError: It cannot be created.
        """
        self._close()
        self._written = 0
        if self._path is None:
            self._fd = os.dup(1)
            return
        self._number += 1
        path = self._named(self._number)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error
        if self._most_files and self._number > self._most_files:
            with suppress(OSError):
                self._named(self._number - self._most_files).unlink(missing_ok=True)

    def write(self, blocks: bytes) -> None:
        """Write whole blocks; if that fails, cut the file behind the last whole ones.

        Raises:
            BrokenPipeError: The reader of the pipe has gone.
            HostError: The file cannot be written.
        """
        left = memoryview(blocks)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._path is not None:
                with suppress(OSError):
                    os.ftruncate(self._fd, self._written)
            raise HostError(f"{self.name}: {error.strerror}") from error
        self._written += len(blocks)

    def is_full(self) -> bool:
        """Return whether the next blocks belong into a new file."""
        return bool(self._most_files) and self._written >= self._most_bytes

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
