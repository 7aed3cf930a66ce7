"""cache: as large as the disk, so that every block is in it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.stacks.stack import SIZE, Bare, Stack, image, opened
from vscsihba.handlers.base import Handler
from vscsihba.handlers.shared.tmpfs_store import private_directory
from vscsihba.handlers.stack import Document


def _make(mode: str) -> Callable[[Path], Document]:
    def make(folder: Path) -> Document:
        return {"handler": "cache", "size": SIZE, "mode": mode, "next": str(image(folder / "disk.img"))}

    return make


def _fetch(disk: Handler) -> None:
    """Read every block once, for a write-through cache keeps only what was read; then write all back."""
    for offset in range(0, SIZE, 1 << 20):
        disk.read(offset, [memoryview(bytearray(1 << 20))])
    disk.flush()


@contextmanager
def _bare_memory() -> Iterator[int]:
    """Yield a file where the cache keeps its blocks."""
    folder = tempfile.TemporaryDirectory(dir=private_directory().parent, prefix=".bench-")
    with folder as name, opened(image(Path(name) / "blocks")) as fd:
        yield fd


@contextmanager
def _bare_write_back(_folder: Path) -> Iterator[Bare]:
    with _bare_memory() as blocks:
        yield Bare(
            lambda view, offset: os.preadv(blocks, [view], offset),
            lambda view, offset: os.pwritev(blocks, [view], offset),
        )


@contextmanager
def _bare_write_through(folder: Path) -> Iterator[Bare]:
    with _bare_memory() as blocks, opened(image(folder / "bare.img")) as disk:
        yield Bare(
            lambda view, offset: os.preadv(blocks, [view], offset),
            lambda view, offset: os.pwritev(disk, [view], offset),
        )


STACKS = (
    Stack(
        "cache, write-back",
        _make("write-back"),
        _bare_write_back,
        "1 preadv or pwritev in /run",
        prepare=_fetch,
    ),
    Stack(
        "cache, write-through",
        _make("write-through"),
        _bare_write_through,
        "1 preadv in /run, or pwritev",
        prepare=_fetch,
    ),
)
