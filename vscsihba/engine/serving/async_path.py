"""Plain READs and WRITEs that begin asynchronously, straight from the CDB to the handler.

The conditions are those of the fast path (`fast_path`). The steps of the command, a generator, are made only
if it does not simply succeed: its first block operation is the one that was done.
"""

from collections.abc import Generator
from functools import partial
from typing import Final

from vscsihba import scsi
from vscsihba.block import BlockOp, BlockResult, Buffer
from vscsihba.engine.serving.async_operations import AsyncOperations
from vscsihba.engine.serving.fast_path import FastPathState
from vscsihba.engine.serving.task import Task
from vscsihba.engine.serving.task_set import TaskSet
from vscsihba.handlers.base import AsyncVerbs
from vscsihba.scsi import FAST_PATH_OPCODES
from vscsihba.stats import LunStats

_WRITTEN: Final = scsi.Response(scsi.Status.GOOD)


def _no_steps() -> Generator[BlockOp, BlockResult, scsi.Response | None]:
    """Stand in for the steps of a command that are not made yet."""
    yield from ()
    return None


_UNMADE: Final = _no_steps()


class AsyncPath:
    """Plain commands of one logical unit. All of it runs on the pump's thread.

    Args:
        unit: The unit.
        verbs: Asynchronous verbs of its handler stack.
        state: Conditions of the fast path, which are those of this one.
        operations: The asynchronous operations of the unit.
        tasks: Its commands.
        stats: Its counters.
    """

    def __init__(
        self,
        unit: scsi.LogicalUnit,
        verbs: AsyncVerbs,
        state: FastPathState,
        *,
        operations: AsyncOperations,
        tasks: TaskSet,
        stats: LunStats,
    ) -> None:
        self._unit = unit
        self._read = verbs.read
        self._write = verbs.write
        self._state = state
        self._operations = operations
        self._tasks = tasks
        self._stats = stats
        self._shift = unit.block_size.bit_length() - 1
        self._most = unit.max_transfer_blocks * unit.block_size
        self._opcodes = dict(FAST_PATH_OPCODES)
        self._answers: dict[int, scsi.Response] = {}

    def begin(self, tag: int, cdb: bytes, views: list[memoryview]) -> bool:
        """Begin a command; False if it is not plain, or the handler cannot: nothing has happened then."""
        entry = self._opcodes.get(cdb[0])
        state = self._state
        if entry is None or not state.clear:
            return False
        unpack_from, is_write = entry
        flags, lba, count, control = unpack_from(cdb, 0)
        length = count << self._shift
        if (
            flags
            or control
            or not 0 < length <= self._most
            or lba + count > state.blocks
            or length != (len(views[0]) if len(views) == 1 else sum(map(len, views)))
        ):
            return False
        if is_write:
            if self._write is None or not state.writable:
                return False
            start = partial(self._write, lba << self._shift, views, False)  # noqa: FBT003 - see AsyncVerbs
        else:
            if self._read is None:
                return False
            start = partial(self._read, lba << self._shift, views)
        task = Task(tag, cdb, Buffer(views), _UNMADE)
        self._tasks.begun(task)
        try:
            if self._operations.start(start, partial(self._ended, task, is_write)):
                return True
        except Exception:  # noqa: BLE001, S110 - nothing has begun: the task set tries again, and answers
            pass
        self._tasks.not_begun(task)
        return False

    def _ended(self, task: Task, is_write: bool, _value: BlockResult, error: Exception | None) -> None:  # noqa: FBT001
        stats, length = self._stats, task.buffer.length
        if error is not None or task.abandoned:
            self._tasks.go_on_with(task, partial(self._unit.execute, task.cdb, task.buffer), error)
            return
        if is_write:
            stats.writes += 1
            stats.write_bytes += length
            self._tasks.end_begun(task, _WRITTEN)
            return
        stats.reads += 1
        stats.read_bytes += length
        answer = self._answers.get(length)
        if answer is None:
            answer = self._answers[length] = scsi.Response(scsi.Status.GOOD, data_in=length)
        self._tasks.end_begun(task, answer)
