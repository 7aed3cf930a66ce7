"""Plain commands at depth cost hardly more than the call that moves their bytes."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.bench.command_path import UnreapedLoopback, cdb_10, serving
from vscsihba import latency
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import BATCH, ServedLun
from vscsihba.handlers.shared import linux

DEPTH = 32
BLOCK = 4096
READ_10, WRITE_10 = 0x28, 0x2A


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(DEPTH * BLOCK))
    return path


@contextmanager
def counted(
    image: Path, monkeypatch: pytest.MonkeyPatch, *, in_memory: bool = True
) -> Iterator[tuple[UnreapedLoopback, ServedLun, CallQueue, Counter[str]]]:
    """Serve a file, and count the system calls for it."""
    calls: Counter[str] = Counter()

    def counting(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    for name in ("preadv", "pwritev", "lseek"):
        counting(os, name)
    counting(time, "monotonic")
    monkeypatch.setattr(latency, "_BUSY", 3600.0)  # only some batches are timed, however slow this machine
    # So that the test reads from the page cache on any file system.
    monkeypatch.setattr(linux, "is_memory", lambda _fd: in_memory)
    with serving({"handler": "file", "path": str(image)}) as (loopback, served, queue):
        calls.clear()
        yield loopback, served, queue, calls


def serve(loopback: UnreapedLoopback, served: ServedLun) -> int:
    """Serve all waiting commands; return the number of batches."""
    batches = 0
    while served.pending():
        served.serve()
        batches += 1
    loopback.reap()
    assert all(not answer.status for answer in loopback.answers.values())
    loopback.answers.clear()
    return batches


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("opcode", [READ_10, WRITE_10])
def test_system_calls_a_command_at_depth(
    image: Path, monkeypatch: pytest.MonkeyPatch, opcode: int, *, in_memory: bool
) -> None:
    """In User-Mode Linux and on machines without a TSC, reading the clock is a system call, too."""
    write = opcode == WRITE_10
    with counted(image, monkeypatch, in_memory=in_memory) as (loopback, served, _, calls):
        if not write and served.handler.inline.read is None:
            pytest.skip("the file system has no RWF_NOWAIT")
        for index in range(DEPTH):
            cdb = cdb_10(opcode, index * BLOCK // 512, BLOCK // 512)
            loopback.submit(cdb, data_out=bytes(BLOCK if write else 0), data_in=0 if write else BLOCK)
        kicks = loopback.kicks
        assert serve(loopback, served) == DEPTH / BATCH
        assert loopback.kicks - kicks == DEPTH / BATCH
        batches = DEPTH / BATCH
        for_writes = {"pwritev": DEPTH, "lseek": batches}
        timed = 2  # the clock, before and after the batch that the latencies are measured by
        clock = timed if in_memory or not write else timed + 2 * batches
        assert calls == (for_writes if write else {"preadv": DEPTH}) | {"monotonic": clock}


def test_each_batch_asks_anew_for_the_end_of_the_file(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(image, monkeypatch) as (loopback, served, queue, calls):
        for _ in range(2):
            loopback.submit(cdb_10(WRITE_10, 0, 8), data_out=bytes(BLOCK))
            serve(loopback, served)
        assert calls["lseek"] == 2
        os.truncate(image, BLOCK)
        tag = loopback.submit(cdb_10(WRITE_10, 16, 8), data_out=bytes(BLOCK))
        served.serve()
        while served.busy:
            queue.run()
        loopback.reap()
        assert loopback.wait(tag).status
    assert image.stat().st_size == BLOCK
