"""Commands on an NBD server, against libnbd itself: the same requests, depth and memory, on one thread.

Both talk to the same nbdkit with a disk in memory, on a Unix socket, and take turns. Our time is that of the
engine and its handler: from the commands in the ring to the notification of the kernel after the last answer.
The kernel's half of the ring, which the loopback does in Python (queueing commands, consuming completions),
is not in it.

The engine's own pump waits, in both of its ways in turns: it sleeps, or it polls before it sleeps. In life it
measures both and takes the quicker (`vscsihba.engine.serving.polling`), which would need a load that is not
interrupted by its peer; so the row is that of the way that it would take.
"""

import select
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.command_path import ROUNDS, SIZE, Row, UnreapedLoopback, cdb_10, serving
from tests.handlers.nbd.servers import nbdkit
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.polling import THRESHOLD, longest_spin
from vscsihba.engine.serving.pump import Pump
from vscsihba.handlers.nbd.address import libnbd
from vscsihba.handlers.stack import Document

LENGTH: Final = 4096
DEPTHS: Final = (1, 32)
_BATCH: Final = 32
"""Commands of one measurement, whatever the depth."""
_FLUSHED: Final = 4 << 20
"""Bytes after which the disk is flushed, as file systems do: copies of writes are kept until then."""
_APART: Final = SIZE // 2
"""Byte at which the blocks of libnbd begin: ours are at the start."""
READ: Final = 0x28
WRITE: Final = 0x2A
_SYNCHRONIZE_CACHE: Final = cdb_10(0x35, 0, 0)
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
    ways: dict[float, list[float]] = {0.0: [], longest_spin(): []}
    bare: dict[float, list[float]] = {window: [] for window in ways}
    disk = _Disk()
    with serving(document, disk.pump.calls) as (loopback, served, _):
        disk.begin(loopback, served)
        views = [loopback.memory[-(index + 1) * LENGTH :][:LENGTH] for index in range(depth)]
        for _ in range(_FLUSHED // (_BATCH * LENGTH)):  # reads find data, and writes memory for their copies
            disk.time_commands(WRITE, max(DEPTHS))
        time_libnbd(handle, WRITE, views)
        for _ in range(ROUNDS):
            for window, microseconds in ways.items():
                disk.polling.window = window
                microseconds.append(disk.time_commands(opcode, depth))
                bare[window].append(time_libnbd(handle, opcode, views))
        for view in views:
            view.release()
        disk.end()
    sleeping, spinning = (statistics.median(microseconds) for microseconds in ways.values())
    way = list(ways)[spinning < sleeping * THRESHOLD]
    return Row.of(f"{what}, depth {depth}", ways[way], bare[way], bare_name)


class _Polling:
    """Stands in for the engine's choice between sleeping and polling."""

    window = 0.0

    def note(self, _seconds: float, _commands: int) -> None:
        """Measure nothing."""


class _Disk:
    """A disk that a pump serves on the calling thread.

    Attributes:
        polling: Its `window` is the time for which the pump polls.
    """

    def __init__(self) -> None:
        self.pump = Pump()
        self.polling = _Polling()
        self.pump._polling = self.polling  # type: ignore[assignment]
        self._ended = self._unflushed = 0

    def begin(self, loopback: UnreapedLoopback, served: ServedLun) -> None:
        """Have the pump serve it."""
        self._loopback, self._served = loopback, served
        served.begin(self.pump)
        loopback.notified = self._notified

    def _notified(self) -> None:
        if not self._served.busy and not self._served.pending():
            self._ended = time.perf_counter_ns()
            self.pump.halt()

    def time_commands(self, opcode: int, depth: int) -> float:
        """Return microseconds a command; flushes are not counted."""
        taken = 0
        self._unflushed += _BATCH * LENGTH * (opcode == WRITE)
        if self._unflushed > _FLUSHED:
            self._unflushed = 0
            self._flush()
        for first in range(0, _BATCH, depth):
            for index in range(first, first + depth):
                submit(self._loopback, opcode, index)
            before = time.perf_counter_ns()
            self.pump.run()
            taken += self._ended - before
            check(self._loopback, opcode, depth)
        return taken / _BATCH / 1e3

    def _flush(self) -> None:
        self._loopback.submit(_SYNCHRONIZE_CACHE)
        self.pump.run()
        self._loopback.reap()
        self._loopback.answers.clear()

    def end(self) -> None:
        """Let the pump leave it."""
        self._loopback.notified = lambda: None
        self.pump.remove(self._served)


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
