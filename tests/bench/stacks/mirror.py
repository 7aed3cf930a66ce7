"""mirror: two files."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.stacks.stack import Bare, Stack, image, opened
from vscsihba.handlers.base import Handler
from vscsihba.handlers.mirror.handler import MirrorHandler
from vscsihba.handlers.stack import Document

_LIMIT = 60.0
"""Seconds for the first resync."""


def _make(folder: Path) -> Document:
    legs = [str(image(folder / "a.img")), str(image(folder / "b.img", hole=True))]
    return {"handler": "mirror", "path": str(folder / "state"), "create": True, "legs": legs}


def _wait_until_equal(disk: Handler) -> None:
    assert isinstance(disk, MirrorHandler)
    deadline = time.monotonic() + _LIMIT
    while {leg.standing for leg in disk.status()} != {"whole"} or disk.progress is not None:
        if time.monotonic() > deadline:
            raise AssertionError(f"the legs are not equal after {_LIMIT:.0f} s: {disk.status()}")
        time.sleep(0.01)


@contextmanager
def _bare(folder: Path) -> Iterator[Bare]:
    with opened(image(folder / "bare-a.img")) as a, opened(image(folder / "bare-b.img")) as b:

        def write(view: memoryview, offset: int) -> None:
            os.pwritev(a, [view], offset)
            os.pwritev(b, [view], offset)

        yield Bare(lambda view, offset: os.preadv(a, [view], offset), write)


STACKS = (Stack("mirror", _make, _bare, "1 preadv, or 2 pwritev", prepare=_wait_until_equal),)
