"""The task set of one logical unit (SAM-5): commands that wait and run, and which of them may overlap.

An *exclusive* command waits until the commands under way have ended, and newer ones wait for its end. A
command that only begins *alone* (FORMAT UNIT) makes newer ones wait until it has begun. An *abandoned*
command, which was answered before its end, makes newer ones wait for its end: it may change data until
then, and a late write must not follow a newer one.

A *visit* is a block operation of another unit's command, or of background work. It overlaps no exclusive
command and does not begin while a command is abandoned. It overtakes commands that only wait, since they may
wait for the very command that the visit belongs to, here or on the other unit.

All of it runs on the pump's thread; only verbs of the handler run on other threads, and asynchronous verbs
end there.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Protocol

from vscsihba import scsi
from vscsihba.block import CHANGES, BlockOp, BlockResult, Buffer, Execute, Keep, MediumOp, OnUnit
from vscsihba.engine.serving.async_operations import AsyncOperations
from vscsihba.engine.serving.call_queue import Calls
from vscsihba.engine.serving.plain_command import PlainCommand
from vscsihba.engine.serving.tap import Tap
from vscsihba.engine.serving.task import Task
from vscsihba.engine.serving.units_of_hba import Done
from vscsihba.engine.serving.workers import Workers
from vscsihba.records import UNKNOWN
from vscsihba.stats import LunStats, Tally

log = logging.getLogger(__name__)

FAILED = scsi.Response(
    scsi.Status.CHECK_CONDITION,
    scsi.Sense(scsi.SenseKey.HARDWARE_ERROR, scsi.Asc.INTERNAL_TARGET_FAILURE).encode(),
)
"""Answer to a command that an error in our own code has ended."""


class Unit(Protocol):
    """The logical unit that a task set belongs to, as the task set sees it."""

    tap: Tap
    """Says whether somebody wants to know the times of commands."""

    def perform(self, op: BlockOp, /) -> BlockResult:
        """Do one block operation on the unit's storage, on the calling thread."""

    def visit_other(self, lun: int, operation: MediumOp, done: Done, /) -> None:
        """Have another unit of the HBA do a block operation, then call `done`."""

    def visit_self(self, operation: MediumOp, done: Done, /) -> None:
        """Have this unit do a block operation as a visit (`TaskSet.visit`), then call `done`."""

    def held(self) -> bool:
        """Return whether no command may begin for now; `TaskSet.start_waiting` is called again later."""

    def before_change(self, tag: int, /) -> None:
        """Note that the command `tag`, which is not idempotent, is about to make its first change."""

    def task_ended(self, task: Task, response: scsi.Response | None, /) -> None:
        """Take the response of a task that has ended; None for work without a tag."""


class TaskSet:
    """The commands of one logical unit, from their arrival to their end.

    Attributes:
        closing: Background work (of commands that were answered before their end) is no longer continued.

    Args:
        lun: For log lines.
        unit: The unit that executes the commands.
        inline: No operation blocks: all are performed on the pump's thread.
        asynchronous: Begins operations that the handler finishes later; None if it has no such verbs.
        workers: Threads for operations that may block.
        calls: The LUN's calls into the pump.
        stats: Counts the operations that the pump's thread does not perform.
    """

    def __init__(
        self,
        lun: int,
        unit: Unit,
        *,
        inline: bool,
        asynchronous: AsyncOperations | None,
        workers: Workers[BlockResult],
        calls: Calls,
        stats: LunStats,
    ) -> None:
        self.closing = False
        self._lun = lun
        self._unit = unit
        self._perform = unit.perform
        self._tap = unit.tap
        self._inline = inline
        self._asynchronous = asynchronous
        self._workers = workers
        self._calls = calls
        self._stats = stats
        self._waiting: deque[Task] = deque()
        self._visits: deque[tuple[Task, Done]] = deque()
        self._commands: dict[int, Task] = {}
        self._plain: dict[int, PlainCommand] = {}
        self._running = self._background = self._abandoned = 0
        self._exclusive = self._starting = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing waits."""
        waiting = self._waiting or self._visits
        return not (self._running or self._background or self._abandoned or waiting)

    @property
    def clear(self) -> bool:
        """Whether a new command may begin at once."""
        return not (self._exclusive or self._waiting or self._abandoned)

    @property
    def hung(self) -> bool:
        """Whether an abandoned command still waits for its storage: no other command begins until then."""
        return bool(self._abandoned)

    def add(self, task: Task) -> None:
        """Add a command; it begins as soon as it may."""
        if task.tag is not None:
            self._commands[task.tag] = task
        if self._waiting or self._must_wait(task):
            self._waiting.append(task)
            self.start_waiting()
        else:
            self._begin(task)

    def begun(self, command: PlainCommand) -> None:
        """Add a command that begins now, outside of this class (`async_path`); no other one may wait."""
        self._plain[command.tag] = command
        self._running += 1

    def not_begun(self, command: PlainCommand) -> None:
        """Take back `begun`."""
        del self._plain[command.tag]
        self._running -= 1

    def end_plain(self, command: PlainCommand) -> bool:
        """End a command of `begun` that has succeeded; False if an abort has named it: it is a task now."""
        if self._plain.pop(command.tag, None) is None:
            return False
        self._running -= 1
        return True

    def task_of(self, command: PlainCommand) -> Task:
        """Return the task in place of a command of `begun`."""
        task = self._commands.get(command.tag)
        if task is None:
            task = Task(command.tag, command.cdb, Buffer(command.views), _no_steps())
            task.started = task.begun = command.started
            task.storage = time.monotonic() - command.started
            task.tally = Tally.WRITES if command.is_write else Tally.READS
            self._commands[command.tag] = task
            del self._plain[command.tag]
        return task

    def end_begun(self, task: Task, response: scsi.Response) -> None:
        """End a command of `begun` that is a task now."""
        if task.abandoned:
            log.warning("lun %d: the storage has answered the aborted %s", self._lun, task.name)
        self._end(task, response)

    def go_on_with(
        self,
        task: Task,
        steps: Callable[[], Generator[BlockOp, BlockResult, scsi.Response | None]],
        error: Exception | None,
    ) -> None:
        """Continue a command of `begun` by its steps, the first block operation of which has been done.

        Args:
            task: The command.
            steps: Makes the steps.
            error: Error of that operation.
        """
        try:
            task.command = steps()
            next(task.command)
        except StopIteration as stop:
            self._end(task, stop.value)
        except Exception:  # the barrier: no command ends an engine
            log.exception("lun %d: %s failed with an internal error", self._lun, task.name)
            self._end(task, FAILED)
        else:
            self._back(task, None, error)

    def visit(self, task: Task, done: Done) -> None:
        """Add a visit: a task without a tag that does one block operation and calls `done`."""
        self._visits.append((task, done))
        self.start_waiting()

    def drop_visits(self, error: OSError) -> None:
        """Drop the visits that wait, since the unit has failed; each gets `error`."""
        while self._visits:
            task, done = self._visits.popleft()
            task.command.close()
            done(None, error)

    def go_on(self, work: Task, value: BlockResult = None, error: Exception | None = None) -> None:
        """Add the background work of an answered command; commands take precedence.

        Args:
            work: The work.
            value: Result of the block operation that it waits for, if it does.
            error: Error of that operation.
        """
        work.follows = True
        self._background += 1
        self._calls.post(partial(self._advance, work, value, error))

    def start_waiting(self) -> None:
        """Begin visits, then waiting commands in order, as far as exclusive commands allow."""
        if self._starting or not (self._waiting or self._visits):  # called by `_advance`: its loop continues
            return
        self._starting = True
        try:
            while (task := self._next()) is not None:
                self._begin(task)
        finally:
            self._starting = False

    def _begin(self, task: Task) -> None:
        """Begin a command or a visit."""
        self._running += 1
        self._abandoned += task.abandoned
        self._exclusive = task.exclusive
        if self._tap.observers:
            task.begun, task.storage = time.monotonic(), 0.0
        self._advance(task, None, None)

    def _next(self) -> Task | None:
        """Remove and return the next task that may begin now, None if none may."""
        if self._visits and not (self._exclusive or self._abandoned):
            return self._visits.popleft()[0]
        if not self._waiting or self._must_wait(self._waiting[0]):
            return None
        return self._waiting.popleft()

    def _must_wait(self, task: Task) -> bool:
        """Return whether the oldest command that has not begun may not begin now."""
        if self._exclusive or self._abandoned or self._visits:
            return True
        return bool(self._running and (task.exclusive or task.alone)) or self._unit.held()

    def drop(self, tags: Iterable[int]) -> dict[int, Task]:
        """Drop the named commands that have not begun; return them by their tags."""
        named = set(tags)
        dropped = {task.tag: task for task in self._waiting if task.tag is not None and task.tag in named}
        for tag, task in dropped.items():
            self._waiting.remove(task)
            task.command.close()
            del self._commands[tag]
        return dropped

    def find(self, tags: Iterable[int]) -> list[Task]:
        """Return the named commands that have not ended."""
        found = []
        for tag in tags:
            if (plain := self._plain.get(tag)) is not None:
                found.append(self.task_of(plain))
            elif (task := self._commands.get(tag)) is not None:
                found.append(task)
        return found

    def has(self, task: Task) -> bool:
        """Return whether a command has not ended."""
        return task.tag is not None and self._commands.get(task.tag) is task

    def older_than(self, seconds: float) -> list[int]:
        """Return the tags of open commands that are so many seconds old and were not aborted."""
        since = time.monotonic() - seconds
        plain = [tag for tag, command in self._plain.items() if command.started <= since]
        return plain + [
            tag for tag, task in self._commands.items() if task.aborted_by is None and task.started <= since
        ]

    def abandon(self, task: Task, *, stop: bool) -> None:
        """Note that a command was answered before its end: newer commands wait until it ends.

        Args:
            task: The command.
            stop: End it after the block operation under way.
        """
        task.abandoned, task.stopped = True, stop
        self._abandoned += task not in self._waiting

    def _advance(self, task: Task, value: BlockResult, error: Exception | None) -> None:
        """Run a task until it ends, or waits for its storage, a thread or another unit."""
        if task.follows and self.closing:  # background work ends here
            task.command.close()
            self._end(task, None)
            return
        try:
            while True:
                op = task.command.send(value) if error is None else task.command.throw(error)
                if task.non_idempotent:
                    self._note_change(task, op)
                if not self._inline or task.follows or isinstance(op, OnUnit | Keep):
                    break
                value, error = self._perform_here(task, op)
            self._submit(task, op)
        except StopIteration as stop:
            self._end(task, stop.value)
        except Exception:  # the barrier: no command ends an engine
            log.exception("lun %d: %s failed with an internal error", self._lun, task.name)
            task.command.close()
            self._end(task, FAILED)

    def _submit(self, task: Task, op: BlockOp) -> None:
        """Have a block operation done by another unit, as a visit, asynchronously, or on a worker thread."""
        self._stats.waits += 1
        if task.begun >= 0:
            task.submitted = time.monotonic()
        if isinstance(op, OnUnit):
            self._unit.visit_other(op.lun, op.operation, partial(self._post_back, task))
        elif task.follows and not isinstance(op, Keep | Execute):
            self._unit.visit_self(op, partial(self._post_back, task))
        elif self._asynchronous is None or not self._asynchronous.begin(op, partial(self._back, task)):
            self._workers.submit(partial(self._perform, op), partial(self._back, task))

    def _post_back(self, task: Task, value: BlockResult, error: Exception | None) -> None:
        """Continue a task later, by a call of this unit; commands take precedence."""
        self._calls.post(partial(self._back, task, value, error))

    def _note_change(self, task: Task, op: BlockOp) -> None:
        """Record the first change of a non-idempotent command."""
        if task.tag is not None and isinstance(op, CHANGES):
            task.non_idempotent = False
            self._unit.before_change(task.tag)

    def _perform_here(self, task: Task, op: BlockOp) -> tuple[BlockResult, OSError | None]:
        submitted = time.monotonic() if task.begun >= 0 else UNKNOWN
        try:
            return self._perform(op), None
        except OSError as error:
            return None, error
        finally:
            if submitted >= 0:
                task.storage += time.monotonic() - submitted

    def _back(self, task: Task, value: BlockResult, error: Exception | None) -> None:
        """Continue a task whose block operation has been done elsewhere."""
        if task.submitted >= 0:
            task.storage += time.monotonic() - task.submitted
            task.submitted = UNKNOWN
        if task.abandoned:
            log.warning("lun %d: the storage has answered the aborted %s", self._lun, task.name)
        if task.abandoned and task.alone:
            # An erasure goes on after its command was aborted (SBC-4 "Sanitize operations").
            self._end(task, None)
            task.tag, task.abandoned, task.stopped = None, False, False
            self.go_on(task, value, error)
        elif task.stopped:
            task.command.close()
            self._end(task, None)
        else:
            self._advance(task, value, error)

    def _end(self, task: Task, response: scsi.Response | None) -> None:
        try:
            self._unit.task_ended(task, response)
        finally:  # the counts stay right, even if the answer raises
            if task.follows:
                self._background -= 1
            else:
                self._running -= 1
                self._abandoned -= task.abandoned
                self._exclusive = self._exclusive and not task.exclusive
                if task.tag is not None:
                    del self._commands[task.tag]
        if self._waiting or self._visits:
            self.start_waiting()


def _no_steps() -> Generator[BlockOp, BlockResult, scsi.Response | None]:
    """Stand in for the steps of a command that are not made yet."""
    yield from ()
    return None
