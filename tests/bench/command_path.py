"""The path of one command, natively: in-process ring, pump, decode, checks, handler, answer.

Each row is set against the bare system call on the same blocks and the same memory, or
with filters against the path without, and the two are measured alternately, so that a slow moment
of the machine hits both.
"""

import os
import select
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import truediv
from pathlib import Path

from vscsihba import scsi
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.handlers.stack import Document, build
from vscsihba.loopback import Loopback
from vscsihba.stats import LunStats

BATCH = 32
ROUNDS = 60
FILTERS: dict[str, list[dict[str, object]]] = {
    "readonly": [{"handler": "readonly"}],
    "offset": [{"handler": "offset", "offset": "1MiB"}],
    "stats": [{"handler": "stats"}],
    "readonly, offset": [{"handler": "readonly"}, {"handler": "offset", "offset": "1MiB"}],
}
SIZE = 64 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One measured path.

    Attributes:
        name: The command.
        microseconds: Microseconds a command, ring to ring (median).
        bare: Microseconds of what it is compared with (median), 0 if there is nothing.
        spread: Interquartile range of `microseconds` in microseconds.
        ratio: Time over bare (median of the ratios of rounds, whose two halves ran one after the other); 0
            where there is nothing to compare with.
        against: The thing that it is compared with.
    """

    name: str
    microseconds: float
    bare: float
    spread: float
    ratio: float
    against: str

    @classmethod
    def of(cls, name: str, microseconds: list[float], bare: list[float], against: str) -> "Row":
        """Return the row of measured rounds."""
        quartiles = statistics.quantiles(microseconds, n=4)
        return cls(
            name,
            statistics.median(microseconds),
            statistics.median(bare) if bare else 0.0,
            quartiles[2] - quartiles[0],
            statistics.median(map(truediv, microseconds, bare)) if bare else 0.0,
            against if bare else "",
        )


def cdb_10(opcode: int, lba: int, blocks: int) -> bytes:
    """Return a 10-byte CDB with an LBA and a length."""
    return struct.pack(">BBIBHB", opcode, 0, lba, 0, blocks, 0)


class UnreapedLoopback(Loopback):
    """A loopback that takes answers when it is told to: the kernel's part need not be timed.

    Attributes:
        notified: Called at each notification of the server.
    """

    notified: Callable[[], None] = staticmethod(lambda: None)

    def consume(self) -> None:
        """Count a notification of the server."""
        self.kicks += 1
        self.notified()

    def reap(self) -> None:
        """Take the answers that were published."""
        super().consume()
        self.kicks -= 1


@contextmanager
def serving(
    document: Document, queue: CallQueue | None = None
) -> Iterator[tuple[UnreapedLoopback, ServedLun, CallQueue]]:
    """Serve a stack over an in-process ring, on the calling thread; `queue` takes its calls, if given."""
    with ExitStack() as undo:
        handler = undo.enter_context(build(document))
        run = undo.enter_context(tempfile.TemporaryDirectory(dir=memory()))
        loopback = UnreapedLoopback(ring_size=1 << 20, blocks=BATCH * 257, journal=Path(run) / "journal")
        stats = LunStats()
        identity = scsi.Identity.derive("benchmark")
        unit = scsi.LogicalUnit(handler.geometry, handler.capabilities, identity, stats=stats)
        own = queue is None
        queue = queue or CallQueue()
        served = ServedLun(0, loopback.transport, unit, handler, queue, stats=stats, listeners=Listeners())
        for _ in range(8):  # take the unit attentions
            loopback.submit(bytes(6))
            served.serve()
            loopback.reap()
        loopback.answers.clear()
        yield loopback, served, queue
        served.finish(lambda: None)
        queue.run()
        if own:
            queue.close()
        loopback.close()


def memory() -> Path | None:
    """Return a folder that is kept in memory, as /run is, None if there is none."""
    return Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def time_batch(
    loopback: UnreapedLoopback,
    served: ServedLun,
    queue: CallQueue,
    cdbs: list[bytes],
    length: int,
    *,
    write: bool,
) -> float:
    """Return microseconds a command for one batch; queueing and reaping are not counted."""
    queue_commands(loopback, cdbs, length, write=write)
    before = time.perf_counter_ns()
    served.transport.drain(served.fast_path, served.accept)
    served.end_batch()
    served.stats.batches += 1
    while served.busy:  # some went to threads, as in life
        select.select([queue], [], [])
        queue.run()
    taken = time.perf_counter_ns() - before
    served.transport.publish()
    reap_commands(loopback, len(cdbs))
    return taken / len(cdbs) / 1e3


def queue_commands(loopback: Loopback, cdbs: list[bytes], length: int, *, write: bool) -> None:
    """Queue commands of `length` bytes each."""
    for cdb in cdbs:
        loopback.submit(cdb, data_out=bytes(length) if write else b"", data_in=0 if write else length)


def time_served(served: ServedLun, queue: CallQueue) -> int:
    """Serve the commands that are queued until the last has ended; return the nanoseconds."""
    before = time.perf_counter_ns()
    while served.pending():
        served.serve()
    while served.busy:
        select.select([queue], [], [])
        queue.run()
    return time.perf_counter_ns() - before


def reap_commands(loopback: UnreapedLoopback, count: int) -> None:
    """Check that all of `count` commands were answered with GOOD, and forget the answers."""
    loopback.reap()
    if len(loopback.answers) != count or any(answer.status for answer in loopback.answers.values()):
        raise AssertionError(f"not every command was answered with GOOD: {loopback.answers}")
    loopback.answers.clear()


def time_bare(call: Callable[[list[memoryview], int], int], views: list[memoryview], length: int) -> float:
    """Return microseconds a call for one batch of the system call on the same offsets."""
    before = time.perf_counter_ns()
    for index, view in enumerate(views):
        call([view], index * length)
    return (time.perf_counter_ns() - before) / len(views) / 1e3


def measure(
    name: str,
    document: Document,
    opcode: int,
    length: int,
    path: Path | None,
    *,
    inline: bool = True,
    depth: int = BATCH,
) -> Row:
    """Measure one kind of command, `depth` at once, against the system call that it ends in.

    Without `inline`, a thread executes it, as if the handler had no inline verbs.
    """
    write = opcode in (0x2A, 0x8A)
    batch = max(1, min(depth, (16 << 20) // max(length, 1)))
    cdbs = [cdb_10(opcode, index * (length // 512), length // 512) for index in range(batch)]
    if opcode == 0x12:
        cdbs = [bytes([0x12, 0, 0, 0, length, 0])] * batch
    microseconds, bare = [], []
    with serving(document) as (loopback, served, queue), ExitStack() as undo:
        if not inline:
            served.fast_path = None
        views = [loopback.memory[-(index + 1) * max(length, 1) :][: max(length, 1)] for index in range(batch)]
        call = _bare_call(path, undo, write=write) if path and length and opcode != 0x12 else None
        for _ in range(ROUNDS * (BATCH // depth)):
            microseconds.append(time_batch(loopback, served, queue, cdbs, length, write=write))
            if call is not None:
                bare.append(time_bare(call, views, length))
        for view in views:
            view.release()
    return Row.of(name, microseconds, bare, "the bare system call")


def measure_filters(name: str, document: Document, without: Document) -> Row:
    """Measure cached reads of 4 KiB through filters against the same without."""
    cdbs = [cdb_10(0x28, index * 8, 8) for index in range(BATCH)]
    microseconds, bare = [], []
    with serving(without) as below, serving(document) as filtered:
        for _ in range(ROUNDS):
            bare.append(time_batch(*below, cdbs, 4096, write=False))
            microseconds.append(time_batch(*filtered, cdbs, 4096, write=False))
    return Row.of(name, microseconds, bare, "the path without filters")


def _bare_call(path: Path, undo: ExitStack, *, write: bool) -> Callable[[list[memoryview], int], int]:
    fd = os.open(path, os.O_RDWR)
    undo.callback(os.close, fd)
    if write:
        return lambda views, offset: os.pwritev(fd, views, offset)
    return lambda views, offset: os.preadv(fd, views, offset)


def rows() -> Iterator[Row]:
    """Measure every path; yields as each is done."""
    with tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".bench-") as image:
        path = Path(image.name)
        image.truncate(SIZE)
        for offset in range(0, SIZE, 1 << 20):
            os.pwrite(image.fileno(), os.urandom(1 << 20), offset)
        os.fsync(image.fileno())
        file: Document = {"handler": "file", "path": str(path)}
        for length, label in ((4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")):
            yield measure(f"READ(10) {label}, file", file, 0x28, length, path)
            yield measure(f"WRITE(10) {label}, file", file, 0x2A, length, path)
        for handler in ("memory", "null"):
            document: Document = {"handler": handler, "size": SIZE}
            yield measure(f"READ(10) 4 KiB, {handler}", document, 0x28, 4 << 10, None)
        shared: Document = {"handler": "file", "path": str(path), "read_only": True}  # for two at once
        for filters, layers in FILTERS.items():
            stack: Document = shared
            for layer in layers:
                stack = {**layer, "next": stack}
            yield measure_filters(f"READ(10) 4 KiB, {filters} over file", stack, shared)
        for depth in (1, BATCH):
            name = f"READ(10) 4 KiB, file, on a thread, depth {depth}"
            yield measure(name, file, 0x28, 4 << 10, path, inline=False, depth=depth)
        yield measure("flush, file", file, 0x35, 0, path)
        yield measure("INQUIRY, null", {"handler": "null", "size": SIZE}, 0x12, 96, None)
