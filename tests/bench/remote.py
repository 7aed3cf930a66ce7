"""Commands on an NBD server, against libnbd itself: the same requests, depth and memory, on one thread.

Both talk to the same nbdkit with a disk in memory, on a Unix socket, and take turns. Our time is that of the
engine and its handler. The kernel's half of the ring, which the loopback does in Python (queueing commands,
consuming completions), is not in it.
"""

import select
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.command_path import ROUNDS, SIZE, Row, UnreapedLoopback, cdb_10, serving
from tests.handlers.nbd.servers import nbdkit
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.handlers.base import Pollable
from vscsihba.handlers.nbd.address import libnbd
from vscsihba.handlers.stack import Document

LENGTH: Final = 4096
DEPTHS: Final = (1, 32)
_BATCH: Final = 32
"""Commands of one measurement, whatever the depth."""
_APART: Final = SIZE // 2
"""Byte at which the blocks of libnbd begin: ours are at the start."""
READ: Final = 0x28
WRITE: Final = 0x2A
COMMANDS: Final = (("READ", READ), ("WRITE", WRITE))
_DATA: Final = bytes(range(256)) * (LENGTH // 256)


def rows() -> Iterator[Row]:
    """Measure reads and writes of 4 KiB; yields nothing if nbdkit is not installed."""
    if shutil.which("nbdkit") is None:
        return
    with tempfile.TemporaryDirectory() as folder, nbdkit(Path(folder), "memory", str(SIZE)) as server:
        for depth in DEPTHS:
            for name, opcode in COMMANDS:
                handle = libnbd().NBD()
                handle.connect_uri(server.uri())
                title = f"{name}(10) 4 KiB, nbd"
                document = server.document(connections=1)
                yield measure(document, handle, title, opcode, depth, bare_name="libnbd alone")
                handle.shutdown()


def measure(document: Document, handle: Any, what: str, opcode: int, depth: int, *, bare_name: str) -> Row:
    """Measure commands of 4 KiB with `depth` of them under way.

    Args:
        document: Of our disk.
        handle: libnbd's, which is connected to the same server or to one with an equal disk.
        what: The command and the disk, for the title.
        opcode: Of the command.
        depth: Commands under way.
        bare_name: Of the time that ours is compared with.
    """
    microseconds, bare = [], []
    with serving(document) as (loopback, served, queue):
        verbs = served.handler.asynchronous
        assert verbs is not None
        assert verbs.pollable is not None
        pollable = verbs.pollable
        pollable.attach()
        views = [loopback.memory[-(index + 1) * LENGTH :][:LENGTH] for index in range(depth)]
        time_commands(loopback, served, queue, pollable, opcode=WRITE, depth=max(DEPTHS))  # reads find data
        time_libnbd(handle, WRITE, views)
        for _ in range(ROUNDS):
            microseconds.append(time_commands(loopback, served, queue, pollable, opcode=opcode, depth=depth))
            bare.append(time_libnbd(handle, opcode, views))
        for view in views:
            view.release()
        pollable.detach()
    return Row.of(f"{what}, depth {depth}", microseconds, bare, bare_name)


def time_commands(
    loopback: UnreapedLoopback,
    served: ServedLun,
    queue: CallQueue,
    pollable: Pollable,
    *,
    opcode: int,
    depth: int,
) -> float:
    """Return microseconds a command, without the kernel's half of the ring."""
    waiting = select.poll()
    waiting.register(pollable.fileno(), select.POLLIN)
    waiting.register(queue.fileno(), select.POLLIN)
    calls, own = pollable.fileno(), queue.fileno()
    taken = 0
    for first in range(0, _BATCH, depth):
        for index in range(first, first + depth):
            submit(loopback, opcode, index)
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
        check(loopback, opcode, depth)
    return taken / _BATCH / 1e3


def submit(loopback: UnreapedLoopback, opcode: int, index: int) -> None:
    """Queue a command on the block `index`."""
    cdb = cdb_10(opcode, index * (LENGTH // 512), LENGTH // 512)
    if opcode == WRITE:
        loopback.submit(cdb, data_out=_DATA)
    else:
        loopback.submit(cdb, data_in=LENGTH)


def check(loopback: UnreapedLoopback, opcode: int, depth: int) -> None:
    """Check the answers of one round, and remove them.

    Raises:
        AssertionError: One is missing or not as it should be.
    """
    loopback.reap()
    answers, data = list(loopback.answers.values()), _DATA if opcode == READ else b""
    if [answer.status for answer in answers] != [0] * depth or any(each.data != data for each in answers):
        raise AssertionError(f"not every command was answered as it should be: {loopback.answers}")
    loopback.answers.clear()


def _raise(error: Exception) -> None:
    raise error


def time_libnbd(handle: Any, opcode: int, views: list[memoryview]) -> float:
    """Return microseconds a request, made as the example of libnbd's documentation makes it."""
    waiting = select.poll()
    waiting.register(handle.aio_get_fd(), select.POLLIN)
    begin: Callable[..., int] = handle.aio_pwrite if opcode == WRITE else handle.aio_pread
    ended: list[int] = []

    def end(error: Any) -> int:
        ended.append(error.value)
        return 1

    before = time.perf_counter_ns()
    for first in range(0, _BATCH, len(views)):
        for index, view in enumerate(views):
            begin(view, _APART + (first + index) * LENGTH, end)
        while len(ended) < first + len(views):
            waiting.poll()
            handle.aio_notify_read()
    taken = time.perf_counter_ns() - before
    if any(ended):
        raise AssertionError("not every request has succeeded")
    return taken / _BATCH / 1e3
