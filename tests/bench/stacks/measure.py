"""Times every case of the stacks, and the bare calls in turn with it."""

import select
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from typing import Final

from tests.bench.command_path import BATCH, UnreapedLoopback, cdb_10, queue_commands, reap_commands, serving
from tests.bench.stacks import cache, cow, encrypt, file, mirror
from tests.bench.stacks.stack import SIZE, Bare, Call, Case, Stack, buffers
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.handlers.checked import Checked

STACKS: Final = (*file.STACKS, *cow.STACKS, *mirror.STACKS, *cache.STACKS, *encrypt.STACKS)
ROUNDS: Final = 60
_READ, _WRITE = 0x28, 0x2A
_FILL: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Time:
    """Time for one command of a batch in microseconds.

    Attributes:
        wall: On the clock.
        processor: Of all threads of this process.
    """

    wall: float
    processor: float

    @classmethod
    def of(cls, count: int, work: Callable[[], object]) -> "Time":
        """Run `count` commands and return the time for each."""
        processor, wall = time.process_time_ns(), time.perf_counter_ns()
        work()
        wall, processor = time.perf_counter_ns() - wall, time.process_time_ns() - processor
        return cls(wall / count / 1e3, processor / count / 1e3)


@dataclass(frozen=True, slots=True)
class StackRow:
    """One case of one stack, all times in microseconds for a command (medians of rounds).

    Attributes:
        stack: Name of the stack.
        command: Name of the case.
        microseconds: From the ring through the engine and back.
        spread: Interquartile range of that.
        bare: The bare calls.
        ratio: Time over bare; median of the ratios of rounds, whose two halves ran one after the other.
        processor: Processor time of all threads.
        processor_ratio: Processor time over that of the bare calls, likewise.
    """

    stack: str
    command: str
    microseconds: float
    spread: float
    bare: float
    ratio: float
    processor: float
    processor_ratio: float

    @classmethod
    def of(cls, stack: Stack, case: Case, ours: Sequence[Time], bare: Sequence[Time]) -> "StackRow":
        """Return the row of measured rounds."""
        wall = [one.wall for one in ours]
        quartiles = statistics.quantiles(wall, n=4)
        return cls(
            stack.name,
            case.name,
            statistics.median(wall),
            quartiles[2] - quartiles[0],
            statistics.median(one.wall for one in bare),
            statistics.median(map(truediv, wall, (one.wall for one in bare))),
            statistics.median(one.processor for one in ours),
            statistics.median(one.processor / other.processor for one, other in zip(ours, bare, strict=True)),
        )


def rows(names: Sequence[str] = (), depth: int = BATCH, rounds: int = ROUNDS) -> Iterator[StackRow]:
    """Measure stacks; yields as each row is done.

    Args:
        names: Stacks with one of these words in their names; all of them if empty.
        depth: Commands that are queued at once, at most 32.
        rounds: Batches of `depth` commands.
    """
    for stack in STACKS:
        if not names or any(words in stack.name for words in names):
            yield from measure(stack, depth, rounds)


def measure(stack: Stack, depth: int, rounds: int) -> Iterator[StackRow]:
    """Measure the cases of one stack, all on one disk."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-")))
        bare = undo.enter_context(stack.bare(folder))
        ring = undo.enter_context(serving(stack.make(folder)))
        if stack.fill:
            _fill(*ring)
        handler = ring[1].handler
        assert isinstance(handler, Checked)
        stack.prepare(handler.next)
        for number, case in enumerate(stack.cases):
            share = case.most // len(stack.cases)
            starts = range(number * share, (number + 1) * share, depth) if case.once else [0] * (rounds + 1)
            ours, theirs = [], []
            for start in starts[: rounds + 1]:
                ours.append(_time_ours(*ring, case, start, depth))
                theirs.append(_time_bare(bare, case, start, depth))
            yield StackRow.of(stack, case, ours[1:], theirs[1:])  # the first round warms both up


def _time_ours(
    loopback: UnreapedLoopback, served: ServedLun, queue: CallQueue, case: Case, start: int, depth: int
) -> Time:
    """Time a batch; queueing and reaping are not counted."""
    block = served.unit.block_size
    opcode = _WRITE if case.write else _READ
    offsets = (case.offset(start + index) for index in range(depth))
    cdbs = [cdb_10(opcode, offset // block, case.length // block) for offset in offsets]
    queue_commands(loopback, cdbs, case.length, write=case.write)
    taken = Time.of(depth, lambda: _serve(served, queue))
    reap_commands(loopback, depth)
    return taken


def _serve(served: ServedLun, queue: CallQueue) -> None:
    """Serve all commands as the pump does, in batches of its own size."""
    while served.pending():
        served.serve()
    while served.busy:  # with commands that went to threads
        select.select([queue], [], [])
        queue.run()


def _time_bare(bare: Bare, case: Case, start: int, depth: int) -> Time:
    """Time the bare calls of a batch."""
    call = bare.write if case.write else bare.read
    with buffers(depth, case.length) as views:
        pairs = [(view, case.offset(start + index)) for index, view in enumerate(views)]
        return Time.of(depth, lambda: _call(call, pairs))


def _call(call: Call, pairs: Sequence[tuple[memoryview, int]]) -> None:
    for view, offset in pairs:
        call(view, offset)


def _fill(loopback: UnreapedLoopback, served: ServedLun, queue: CallQueue) -> None:
    """Write every sector."""
    block = served.unit.block_size
    for offset in range(0, SIZE, _FILL):
        queue_commands(loopback, [cdb_10(_WRITE, offset // block, _FILL // block)], _FILL, write=True)
        _serve(served, queue)
        reap_commands(loopback, 1)
