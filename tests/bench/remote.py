"""Commands on an NBD server, against libnbd itself: the same reads, depth and memory, on one thread.

Both talk to the same nbdkit with a disk in memory, on a Unix socket, and take turns.
"""

import select
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.command_path import ROUNDS, SIZE, Row, UnreapedLoopback, cdb_10, reap_commands, serving
from tests.handlers.nbd.servers import Server, nbdkit
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.handlers.base import Pollable
from vscsihba.handlers.nbd.address import libnbd

LENGTH: Final = 4096
DEPTHS: Final = (1, 32)
_BATCH: Final = 32
"""Commands of one measurement, whatever the depth."""


def rows() -> Iterator[Row]:
    """Measure reads of 4 KiB; yields nothing if nbdkit is not installed."""
    if shutil.which("nbdkit") is None:
        return
    with tempfile.TemporaryDirectory() as folder, nbdkit(Path(folder), "memory", str(SIZE)) as server:
        for depth in DEPTHS:
            yield measure(server, depth)


def measure(server: Server, depth: int) -> Row:
    """Measure reads of 4 KiB with `depth` commands under way."""
    handle = libnbd().NBD()
    handle.connect_uri(server.uri())
    microseconds, bare = [], []
    with serving(server.document(connections=1)) as (loopback, served, queue):
        verbs = served.handler.asynchronous
        assert verbs is not None
        assert verbs.pollable is not None
        pollable = verbs.pollable
        pollable.attach()
        views = [loopback.memory[-(index + 1) * LENGTH :][:LENGTH] for index in range(depth)]
        for _ in range(ROUNDS):
            microseconds.append(time_commands(loopback, served, queue, pollable, depth))
            bare.append(time_libnbd(handle, views))
        for view in views:
            view.release()
        pollable.detach()
    return Row.of(f"READ(10) 4 KiB, nbd, depth {depth}", microseconds, bare, "libnbd alone")


def time_commands(
    loopback: UnreapedLoopback, served: ServedLun, queue: CallQueue, pollable: Pollable, depth: int
) -> float:
    """Return microseconds a command; queueing and reaping are not counted."""
    waiting = select.poll()
    waiting.register(pollable.fileno(), select.POLLIN)
    waiting.register(queue.fileno(), select.POLLIN)
    calls, own = pollable.fileno(), queue.fileno()
    taken = 0
    for first in range(0, _BATCH, depth):
        for index in range(first, first + depth):
            loopback.submit(cdb_10(0x28, index * (LENGTH // 512), LENGTH // 512), data_in=LENGTH)
        before = time.perf_counter_ns()
        while served.pending():
            served.serve()
        while served.busy:
            for fd, _ in waiting.poll():
                if fd == calls:
                    queue.run_after(pollable.serve, _raise)
                elif fd == own:
                    queue.run()
        taken += time.perf_counter_ns() - before
        reap_commands(loopback, depth)
    return taken / _BATCH / 1e3


def _raise(error: Exception) -> None:
    raise error


def time_libnbd(handle: Any, views: list[memoryview]) -> float:
    """Return microseconds a read, made as the example of libnbd's documentation makes it."""
    waiting = select.poll()
    waiting.register(handle.aio_get_fd(), select.POLLIN)
    ended: list[int] = []

    def end(error: Any) -> int:
        ended.append(error.value)
        return 1

    before = time.perf_counter_ns()
    for first in range(0, _BATCH, len(views)):
        for index, view in enumerate(views):
            handle.aio_pread(view, (first + index) * LENGTH, end)
        while len(ended) < first + len(views):
            waiting.poll()
            handle.aio_notify_read()
    taken = time.perf_counter_ns() - before
    if any(ended):
        raise AssertionError("not every read has succeeded")
    return taken / _BATCH / 1e3
