"""Changing the size of a unit while it is served."""

import errno
import struct
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, triple
from tests.engine.slow import FLUSH, slow_rig
from vscsihba.errors import HostError
from vscsihba.handlers.stack import Document

MiB = 1 << 20
CAPACITY_CHANGED = (6, 0x2A, 9)


def resize(rig: Rig, size: int) -> "Future[None]":
    done: Future[None] = Future()
    rig.pump.calls.post(partial(rig.served.resize, size, done))
    return done


def blocks(rig: Rig) -> int:
    answer = rig.run(bytes([0x25]) + bytes(9), data_in=8)
    assert answer.status == GOOD
    return int(struct.unpack(">I", answer.data[:4])[0]) + 1


@pytest.mark.parametrize("handler", ["memory", "file"])
def test_initiators_learn_of_the_new_capacity(handler: str, tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MiB))
    document: Document = {"handler": "memory", "size": MiB} if handler == "memory" else str(image)
    with Rig(document) as rig:
        assert blocks(rig) == 2048
        assert triple(rig.read(2048, 1)) == (5, 0x21, 0)
        assert resize(rig, 2 * MiB).result(60) is None
        answer = rig.read(2048, 1)
        assert (answer.status, triple(answer)) == (CHECK_CONDITION, CAPACITY_CHANGED)
        assert rig.write(4095, b"x" * 512).status == GOOD
        assert rig.read(4095, 1).data == b"x" * 512
        assert blocks(rig) == 4096


def test_a_medium_of_fixed_size_stays_as_it_is() -> None:
    with slow_rig() as (rig, _medium):
        with pytest.raises(OSError, match="cannot be resized") as refused:
            resize(rig, 2 * MiB).result(60)
        assert refused.value.errno == errno.EOPNOTSUPP
        assert rig.read(2047, 1).status == GOOD


def test_a_size_that_no_disk_has_is_refused() -> None:
    with Rig({"handler": "memory", "size": MiB}) as rig:
        with pytest.raises(HostError, match="failed with an internal error"):
            resize(rig, MiB + 1).result(60)
        assert blocks(rig) == 2048


def test_a_resize_waits_for_what_is_under_way_and_overtakes_nothing() -> None:
    with slow_rig() as (rig, handler):
        sizes = []
        changed = threading.Event()

        def take(size: int) -> None:
            sizes.append((size, handler.gate.is_set()))
            changed.set()

        handler.resize = take  # type: ignore[method-assign]
        flush = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(60)
        done = resize(rig, 1 << 20)
        read = rig.loopback.submit(bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), data_in=512)
        assert not changed.is_set()
        handler.gate.set()
        assert rig.loopback.wait(flush).status == GOOD
        assert done.result(60) is None
        assert sizes == [(1 << 20, True)]
        assert triple(rig.loopback.wait(read)) == CAPACITY_CHANGED


def test_a_resize_that_comes_before_the_end_is_done() -> None:
    with Rig({"handler": "memory", "size": MiB}) as rig:
        done = resize(rig, 2 * MiB)
    assert done.result(60) is None
