import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from vscsihba.handlers.base import Handler
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.readonly import ReadonlyHandler
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write


def test_reads_and_shows_the_layer_below(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(b"abcd" * 256)
    with build({"handler": "readonly", "next": str(image)}) as disk:
        assert read(disk, 4, 4) == b"abcd"
        assert disk.identity == f"file:{image}"
        assert disk.geometry.size == 1024
        assert disk.extents(0, 1024)[0].allocated
        assert disk.capabilities.read_only
        assert disk.capabilities.extents
        assert disk.capabilities.unmap, "its holes show"
        disk.flush()


def test_refuses_to_write() -> None:
    with build({"handler": "readonly", "next": {"handler": "memory", "size": 512}}) as disk:
        with pytest.raises(OSError, match="Read-only") as refused:
            write(disk, 0, b"x")
        assert refused.value.errno == errno.EROFS


def test_refuses_to_write_even_if_nobody_asks_what_it_can_do() -> None:
    below = MemoryHandler(MemoryHandler.Options(size=1 << 20))
    below.open()
    handler = ReadonlyHandler(Handler.Options(), below)
    verbs: tuple[Callable[[], None], ...] = (
        lambda: handler.write(0, [memoryview(b"x")]),
        lambda: handler.unmap(0, 512),
        lambda: handler.write_zeroes(0, 512, may_unmap=True),
        lambda: handler.resize(512),
        handler.crypto_erase,
    )
    for verb in verbs:
        with pytest.raises(OSError) as refused:  # noqa: PT011  # the errno is what counts
            verb()
        assert refused.value.errno in (errno.EROFS, errno.EOPNOTSUPP)
    assert below.geometry.size == 1 << 20


def test_inline_reads_go_by_and_writes_do_not(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1024))
    with build(str(image)) as disk:
        plain = disk.inline
    with build({"handler": "readonly", "next": str(image)}) as disk:
        assert disk.inline.write is None
        assert (disk.inline.read is None) == (plain.read is None)
