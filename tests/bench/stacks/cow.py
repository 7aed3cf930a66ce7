"""cow, and snapshot, which is made of the same overlays."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.stacks.stack import Bare, Case, Stack, bare_file, image, opened
from vscsihba.handlers.base import Handler
from vscsihba.handlers.snapshot.handler import SnapshotHandler
from vscsihba.handlers.stack import Document

_CLUSTER = 64 << 10
"""Bytes of a cluster, the default of both handlers."""
_FIRST_WRITES = (
    Case("first WRITE 4 KiB", 4 << 10, write=True, stride=_CLUSTER, once=True),
    Case("first WRITE 64 KiB", _CLUSTER, write=True, once=True),
)
"""Commands on clusters that are in the base only."""


def _cow(folder: Path) -> Document:
    return {"handler": "cow", "path": str(folder / "over.cow"), "create": True, "next": _base(folder)}


def _snapshot(folder: Path) -> Document:
    return {"handler": "snapshot", "path": str(folder / "set"), "create": True, "next": _base(folder)}


def _base(folder: Path) -> Document:
    return {"handler": "file", "path": str(image(folder / "base.img")), "read_only": True}


def _take(disk: Handler) -> None:
    """Take a snapshot, so that all data is in the layer below the topmost one."""
    assert isinstance(disk, SnapshotHandler)
    disk.take("bench")


@contextmanager
def _bare_copy(folder: Path) -> Iterator[Bare]:
    """Yield the calls that copy a cluster of a base into an overlay with the change in it."""
    base_path, overlay_path = image(folder / "bare.img"), image(folder / "bare.cow", hole=True)
    cluster = memoryview(bytearray(_CLUSTER))
    with opened(base_path) as base, opened(overlay_path) as overlay:

        def write(view: memoryview, offset: int) -> None:
            if len(view) < _CLUSTER:
                os.preadv(base, [cluster[len(view) :]], offset + len(view))
            os.pwritev(overlay, [view, cluster[len(view) :]], offset)

        yield Bare(lambda view, offset: os.preadv(base, [view], offset), write)


STACKS = (
    Stack("cow", _cow, bare_file, "1 preadv or pwritev"),
    Stack(
        "cow, new", _cow, _bare_copy, "preadv of the rest of the cluster, pwritev", _FIRST_WRITES, fill=False
    ),
    Stack("snapshot", _snapshot, bare_file, "1 preadv or pwritev", prepare=_take),
)
