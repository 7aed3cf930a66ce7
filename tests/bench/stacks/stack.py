"""The definition of a row: a stack, the commands that are timed on it, and the bare calls for comparison."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from vscsihba.handlers.base import Handler
from vscsihba.handlers.stack import Document

SIZE: Final = 64 << 20
"""Bytes of every disk."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of command.

    Attributes:
        name: As in the table.
        length: Bytes.
        write: WRITE(10), else READ(10).
        stride: Bytes from the start of one command to the start of the next, if they do not adjoin.
        once: No command has the place of an earlier one; else each batch is the same as the one before.
    """

    name: str
    length: int
    write: bool
    stride: int = 0
    once: bool = False

    def offset(self, number: int) -> int:
        """Return the first byte of a command, counted from the first command of the row."""
        return number * (self.stride or self.length)

    @property
    def most(self) -> int:
        """Commands that fit on the disk."""
        return SIZE // (self.stride or self.length)


CASES: Final = (
    Case("READ 4 KiB", 4 << 10, write=False),
    Case("READ 64 KiB", 64 << 10, write=False),
    Case("WRITE 4 KiB", 4 << 10, write=True),
    Case("WRITE 64 KiB", 64 << 10, write=True),
)

Call = Callable[[memoryview, int], object]
"""``call(view, offset)``: move the bytes of `view` from or to `offset` of the disk."""


class Bare(NamedTuple):
    """The system calls that a stack cannot do without, and nothing else.

    Attributes:
        read: The calls of a read.
        write: The calls of a write.
    """

    read: Call
    write: Call


def _as_it_is(_disk: Handler) -> None:
    """Leave the disk as it is."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack.

    Attributes:
        name: As in the table, and for ``--stack``.
        make: Makes the media in an empty directory, and returns the document of the disk.
        bare: Yields the bare calls, on files of their own in the same directory.
        against: The bare calls in words.
        cases: The commands that are timed.
        fill: Write every sector before anything is timed.
        prepare: Called with the topmost handler before anything is timed, after `fill`.
    """

    name: str
    make: Callable[[Path], Document]
    bare: Callable[[Path], AbstractContextManager[Bare]]
    against: str
    cases: tuple[Case, ...] = CASES
    fill: bool = True
    prepare: Callable[[Handler], None] = _as_it_is


def image(path: Path, size: int = SIZE, *, hole: bool = False) -> Path:
    """Make a file with random bytes, or one that is a hole; return its path."""
    with path.open("wb") as file:
        if hole:
            file.truncate(size)
        else:
            for _ in range(0, size, 1 << 20):
                file.write(os.urandom(1 << 20))
    return path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file for reading and writing; yields the descriptor."""
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def bare_file(folder: Path) -> Iterator[Bare]:
    """Yield ``preadv`` and ``pwritev`` on a file of its own."""
    with opened(image(folder / "bare.img")) as fd:
        yield Bare(
            lambda view, offset: os.preadv(fd, [view], offset),
            lambda view, offset: os.pwritev(fd, [view], offset),
        )


@contextmanager
def buffers(count: int, length: int) -> Iterator[list[memoryview]]:
    """Yield buffers that have been touched, as those of a ring in use."""
    with mmap.mmap(-1, count * length) as memory, memoryview(memory) as whole:
        whole[:] = bytes(len(whole))
        views = [whole[at : at + length] for at in range(0, len(whole), length)]
        yield views
        for view in views:
            view.release()
