"""The task manager of one logical unit: aborted commands, and resets of the unit.

LOGICAL UNIT RESET: tcm_loop reports success for each command that it aborts, whatever its answer is
(`tcm_loop_release_cmd`: a result of 0). So these commands are executed all the same, in order, before the
unit is reset. Storage that does not answer is waited for, unless success may be reported early.

ABORT TASK: the initiator has given the command up already. So a command that has not begun is dropped, and
storage that does not answer is not waited for.

Knows nothing of rings, nor why a command takes long.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Final

from vscsihba import scsi, threads
from vscsihba.block import BlockOp, BlockResult, Buffer
from vscsihba.engine.serving.call_queue import Calls
from vscsihba.engine.serving.tap import Tap
from vscsihba.engine.serving.task import Task
from vscsihba.engine.serving.task_set import TaskSet
from vscsihba.errors import HostError, TransportError
from vscsihba.transport import TaskManagement, Transport

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds after which the storage of an aborted command counts as not answering."""

_GIVEN_UP: Final = scsi.Sense(
    scsi.SenseKey.ABORTED_COMMAND, scsi.Asc.NO_ADDITIONAL_SENSE_INFORMATION
).encode()

_DROPPED: Final = scsi.Response(scsi.Status.TASK_ABORTED)


def may_drop(function: str | None) -> bool:
    """Return whether a command that a task management function aborts may be left undone.

    It may if its sender does not take it for successful: the sender has given up (scsi_abort_command), or is
    told TASK ABORTED (core_tmr_drain_state_list with TAS).
    """
    return function in {"ABORT TASK", "PREEMPT AND ABORT"}


class Aborts:
    """Carries out task management requests, on the pump's thread.

    Args:
        lun: For log lines.
        unit: The unit that is reset.
        tasks: Its commands.
        transport: Takes their answers.
        tap: Shows them to observers.
        calls: The LUN's calls into the pump.
        publish: Publishes the answers given so far, soon.
        free_kept: Frees a buffer in the kernel, by the number from `Transport.complete_keep_buf`.
    """

    def __init__(
        self,
        lun: int,
        unit: scsi.LogicalUnit,
        tasks: TaskSet,
        *,
        transport: Transport,
        tap: Tap,
        calls: Calls,
        publish: Callable[[], None],
        free_kept: Callable[[int], None],
    ) -> None:
        self._lun = lun
        self._unit = unit
        self._tasks = tasks
        self._transport = transport
        self._tap = tap
        self._calls = calls
        self._publish = publish
        self._free_kept = free_kept
        self._latest_reset: object = None
        self._kept: dict[Task, int] = {}
        self._freeing: list[int] = []
        self._timers: list[threading.Timer] = []

    def act(self, request: TaskManagement) -> None:
        """Carry out a request: end the commands that it names, at once or when done; then reset the unit."""
        log.info("lun %d: %s of %d commands", self._lun, request.function, len(request.tags))
        self._tap.managed(request)
        if may_drop(request.function):
            for tag, task in self._tasks.drop(request.tags).items():
                task.show(self._tap, _DROPPED)
                self._transport.complete(tag, scsi.Status.TASK_ABORTED)
        for task in (named := self._tasks.find(request.tags)):
            task.aborted_by = task.aborted_by or request.function
        if request.function == "LOGICAL UNIT RESET":
            self._unit.forget_events()  # a sender that is told of one now would take the refusal for success
            self._latest_reset = reset = object()
            self._tasks.add(Task(None, b"", Buffer(), self._reset(reset)))
        self._give_up([task for task in named if time.monotonic() - task.started >= PATIENCE])
        if self._tasks.find(request.tags):
            self._give_up_later(named)

    def give_up_old(self) -> None:
        """End the commands that are older than `PATIENCE`, as ABORT TASK does.

        Their senders have gone, or send them again: they are told ABORTED COMMAND or TASK ABORTED. Commands
        that a reset has named are left alone, since their senders take them for successful.
        """
        if tags := self._tasks.older_than(PATIENCE):
            self.act(TaskManagement("ABORT TASK", tuple(tags)))
            self._publish()

    def _reset(self, reset: object) -> Generator[BlockOp, BlockResult, None]:
        """Reset the unit, unless a newer reset waits: that one resets it for both."""
        if reset is self._latest_reset:
            self._unit.reset()
        yield from ()

    def _give_up_later(self, tasks: list[Task]) -> None:
        """Give up, after `PATIENCE`, those commands that have not ended; tags may be reused by then."""

        def give_up() -> None:
            self._give_up([task for task in tasks if self._tasks.has(task)])
            self._publish()

        self._timers = [timer for timer in self._timers if timer.is_alive()]
        timer = threading.Timer(PATIENCE, partial(self._calls.post, give_up))
        timer.daemon = True
        try:
            threads.start(timer)
        except OSError as error:  # they are answered when the storage answers
            log.warning("lun %d: aborted commands are not given up: %s", self._lun, error)
        else:
            self._timers.append(timer)

    def close(self) -> None:
        """Cancel all timers; free what is left, after all answers were published."""
        for timer in self._timers:
            timer.cancel()
        self._free_all()

    def _give_up(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.abandoned:
                continue
            age = time.monotonic() - task.started
            if may_drop(task.aborted_by) or task.alone or self._unit.caches(task.cdb):
                self._abandon(task, age)
            else:
                log.warning(
                    "lun %d: %s waits for %s, which its storage has not answered for %.1f s",
                    self._lun,
                    task.aborted_by,
                    task.name,
                    age,
                )

    def _abandon(self, task: Task, age: float) -> None:
        """Answer a command whose storage is still at work; its buffer is kept until the storage answers."""
        assert task.tag is not None  # noqa: S101 - only commands can be named
        try:
            kept = self._transport.complete_keep_buf(task.tag, _GIVEN_UP)
        except TransportError:  # this kernel has no KEEP_BUF: the command ends when its storage answers
            return
        log.warning(
            "lun %d: %s was aborted after %.1f s, and its storage has not answered; newer commands wait",
            self._lun,
            task.name,
            age,
        )
        task.show(self._tap, scsi.Response(scsi.Status.CHECK_CONDITION, _GIVEN_UP, 0))
        self._tasks.abandon(task, stop=may_drop(task.aborted_by))
        if kept is not None:
            self._kept[task] = kept

    def ended(self, task: Task, response: scsi.Response | None) -> None:
        """Note the end of an aborted command: report a failure that its sender does not learn of."""
        if not may_drop(task.aborted_by) and response and response.status != scsi.Status.GOOD:
            log.error(
                "lun %d: %s failed after a %s, so its sender may take it for successful: %s",
                self._lun,
                task.name,
                task.aborted_by,
                scsi.describe_sense(response.sense) if response.sense else scsi.status_name(response.status),
            )
            if self._unit.stores(task.cdb):
                self._unit.failed_flush.note(f"{task.name} failed after a {task.aborted_by}")
        if (kept := self._kept.pop(task, None)) is not None:
            # Not at once: the kernel has no such buffer before it has seen the early answer.
            self._freeing.append(kept)
            self._publish()
            self._calls.post(self._free_all)

    def _free_all(self) -> None:
        """Free the buffers of the abandoned commands that have ended."""
        while self._freeing:
            self._free(self._freeing.pop())

    def _free(self, kept: int) -> None:
        """Free the buffer of an abandoned command; a reset of the ring may have done so already."""
        try:
            self._free_kept(kept)
        except (HostError, TransportError) as error:
            log.warning("lun %d: the buffer of an aborted command: %s", self._lun, error)
