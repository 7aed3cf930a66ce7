"""Plain READs and WRITEs that begin asynchronously, straight from the CDB to the handler or to a thread.

The conditions are those of the fast path (`fast_path`). Results are taken in batches: one call into the
serving thread completes all that have ended by then. The steps of a command, a generator, are made only if
it does not simply succeed: its first block operation is the one that was done.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from vscsihba import scsi
from vscsihba.block import Read, Write
from vscsihba.engine.serving.call_queue import Calls
from vscsihba.engine.serving.fast_path import FastPathState
from vscsihba.engine.serving.plain_command import PlainCommand, Results
from vscsihba.engine.serving.tap import Tap
from vscsihba.engine.serving.task_set import TaskSet
from vscsihba.handlers.base import AsyncVerbs
from vscsihba.latency import Latencies
from vscsihba.scsi import FAST_PATH_OPCODES
from vscsihba.stats import LunStats, Tally
from vscsihba.transport import Accept

log = logging.getLogger(__name__)

_READS, _WRITES = Tally.READS, Tally.WRITES


class AsyncPath:
    """Plain commands of one logical unit. All of it runs on the pump's thread, except `done` of the commands.

    Args:
        name: Name of the unit, for log lines.
        unit: The unit.
        verbs: Asynchronous verbs of its handler stack.
        state: Conditions of the fast path, which are those of this one.
        tasks: Its commands.
        calls: The LUN's calls into the pump.
        tap: Shows the commands that succeed to observers.
        complete: Completes commands with GOOD, each given as its tag and the valid bytes of its buffer, and
            publishes them.
        otherwise: Takes the commands that are not plain, or that the handler cannot begin.
        stats: Its counters.
        latencies: Its histograms.

    Attributes:
        busy: Commands that have begun and whose result was not taken yet.
    """

    def __init__(
        self,
        name: str,
        unit: scsi.LogicalUnit,
        verbs: AsyncVerbs,
        state: FastPathState,
        *,
        tasks: TaskSet,
        calls: Calls,
        tap: Tap,
        complete: Callable[[list[tuple[int, int]]], None],
        otherwise: Accept,
        stats: LunStats,
        latencies: Latencies,
    ) -> None:
        self._name = name
        self._unit = unit
        self._state = state
        self._tasks = tasks
        self._tap = tap
        self._complete = complete
        self._otherwise = otherwise
        self._stats = stats
        self._latencies = latencies
        self._shift = unit.block_size.bit_length() - 1
        self._most = unit.max_transfer_blocks * unit.block_size
        self._plain: list[tuple[Any, ...] | None] = [None] * 256
        for opcode, (unpack_from, is_write) in FAST_PATH_OPCODES.items():
            if (verb := verbs.write if is_write else verbs.read) is not None:
                self._plain[opcode] = unpack_from, is_write, verb
        self._results = Results(partial(calls.post, self._take_results))
        self.busy = 0

    def accept(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        """Take a command; see `vscsihba.transport.Accept`."""
        entry = self._plain[cdb[0]]
        state = self._state
        if entry is None or not state.clear:
            self._otherwise(tag, cdb, views)
            return
        unpack_from, is_write, verb = entry
        flags, lba, count, control = unpack_from(cdb, 0)
        length = count << self._shift
        if (
            flags
            or control
            or not 0 < length <= self._most
            or lba + count > state.blocks
            or length != (len(views[0]) if len(views) == 1 else sum(map(len, views)))
            or (is_write and not state.writable)
        ):
            self._otherwise(tag, cdb, views)
            return
        command = PlainCommand(self._results, tag, cdb, views, length, is_write)
        self._tasks.begun(command)
        self.busy += 1
        try:
            if is_write:
                verb(lba << self._shift, views, False, command)  # noqa: FBT003 - see AsyncVerbs
            else:
                verb(lba << self._shift, views, command)
        except BlockingIOError:
            pass
        except OSError as error:
            command(error)
            return
        except Exception:  # noqa: BLE001, S110 - nothing has begun: the task set tries again, and answers
            pass
        else:
            return
        self.busy -= 1
        self._tasks.not_begun(command)
        self._otherwise(tag, cdb, views)

    def _take_results(self) -> None:
        """Complete the commands that have ended, all that succeeded together."""
        self._results.posted = False
        ended, stats, tasks, measure = self._results.ended, self._stats, self._tasks, self._latencies.add
        now = time.monotonic()
        observed = bool(self._tap.observers)
        good: list[tuple[int, int]] = []
        others: list[PlainCommand] = []
        for _ in range(len(ended)):
            command = ended.popleft()
            if command.ended:
                log.error("%s: a handler has ended one operation twice", self._name)
                continue
            command.ended = True
            if command.error is not None or not tasks.end_plain(command):
                others.append(command)
            else:
                if observed:
                    self._tap.plain(
                        command.tag,
                        command.cdb,
                        command.views,
                        command.length,
                        is_write=command.is_write,
                        arrived=command.started,
                    )
                if command.is_write:
                    stats.writes += 1
                    stats.write_bytes += command.length
                    good.append((command.tag, 0))
                    measure(_WRITES, now - command.started)
                else:
                    stats.reads += 1
                    stats.read_bytes += command.length
                    good.append((command.tag, command.length))
                    measure(_READS, now - command.started)
        self.busy -= len(good) + len(others)
        if good:
            self._complete(good)
        for command in others:
            self._go_on(command)
        tasks.start_waiting()

    def _go_on(self, command: PlainCommand) -> None:
        """End a command that has failed or that a task management function has named.

        It is not checked again: a unit attention that is pending by now is for a later command.
        """
        task, error = self._tasks.task_of(command), command.error
        if error is None:
            self._tasks.end_begun(task, self._good(command))
        elif isinstance(error, OSError):
            done = Write(0, command.views) if command.is_write else Read(0, command.views)
            self._tasks.end_begun(task, self._unit.failed(task.cdb, done, error))
        else:
            steps = partial(self._unit.execute, task.cdb, task.buffer)
            self._tasks.go_on_with(task, steps, error)

    def _good(self, command: PlainCommand) -> scsi.Response:
        """Count a command that has succeeded, and return its response."""
        stats, length = self._stats, command.length
        if command.is_write:
            stats.writes += 1
            stats.write_bytes += length
            return scsi.Response(scsi.Status.GOOD)
        stats.reads += 1
        stats.read_bytes += length
        return scsi.Response(scsi.Status.GOOD, data_in=length)
