"""Block operations on handlers, and the saved state of a unit."""

import errno

import pytest

from vscsihba.block import (
    AskSpace,
    Execute,
    Extent,
    Extents,
    Flush,
    Keep,
    OnUnit,
    Read,
    Resize,
    Unmap,
    Write,
    WriteZeroes,
)
from vscsihba.engine.serving.perform import perform
from vscsihba.handlers.base import Handler
from vscsihba.handlers.stack import build

SIZE = 1 << 20


@pytest.fixture
def media() -> dict[int, Handler]:
    return {lun: build({"handler": "memory", "size": SIZE}).open() for lun in (0, 1)}


def content(handler: Handler, length: int = 512) -> bytes:
    buffer = bytearray(length)
    perform(handler, Read(0, [memoryview(buffer)]))
    return bytes(buffer)


def test_each_operation_reaches_its_verb(media: dict[int, Handler]) -> None:
    handler = media[0]
    assert perform(handler, Write(0, [memoryview(b"x" * 512)])) is None
    assert content(handler) == b"x" * 512
    assert perform(handler, Flush()) is None
    perform(handler, WriteZeroes(Extent(0, 256), may_unmap=False))
    assert content(handler) == bytes(256) + b"x" * 256
    perform(handler, Unmap(Extent(0, SIZE)))
    extents = perform(handler, Extents(Extent(0, SIZE)))
    assert isinstance(extents, list)
    assert extents[0].extent.offset == 0
    assert perform(handler, AskSpace()) is None, "it has no limit"
    perform(handler, Resize(2 * SIZE))
    assert handler.geometry.size == 2 * SIZE


def test_work_elsewhere_is_for_the_other_unit(media: dict[int, Handler]) -> None:
    with pytest.raises(OSError, match="LUN 5 is not served here") as gone:
        perform(media[0], OnUnit(5, Flush()))
    assert gone.value.errno == errno.ENOTCONN


def test_what_is_to_be_kept_is_handed_to_who_keeps_it(media: dict[int, Handler]) -> None:
    kept: list[bytes] = []
    assert perform(media[0], Keep(b"state"), kept.append) is None
    assert perform(media[0], Keep(b"for nobody")) is None
    assert kept == [b"state"]


def test_without_memory_an_operation_may_be_tried_again(
    media: dict[int, Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise MemoryError

    monkeypatch.setattr(media[0], "flush", refuse)
    with pytest.raises(OSError, match="memory") as raised:
        perform(media[0], Flush())
    assert raised.value.errno == errno.ENOMEM


def test_commands_are_for_those_who_take_them(media: dict[int, Handler]) -> None:
    with pytest.raises(OSError, match="takes no commands") as caught:
        perform(media[0], Execute(bytes(6), []))
    assert caught.value.errno == errno.EOPNOTSUPP
