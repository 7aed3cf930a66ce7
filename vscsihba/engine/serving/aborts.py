"""What becomes of commands that the initiator's side has aborted: the task manager of one logical unit.

Whatever a LOGICAL UNIT RESET ends, tcm_loop reports as done (`tcm_loop_release_cmd`: a
result of 0, whatever was answered). So what a reset ends is done all the same, in its turn, before
the unit is reset; storage that does not answer is waited for, unless "done" may be said beforehand.
ABORT TASK comes when the initiator has given up already, and is told no lie: what has not
begun is dropped, and storage that does not answer is not waited for.

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
from vscsihba.engine.serving.task import Task
from vscsihba.engine.serving.task_set import TaskSet
from vscsihba.errors import HostError, TransportError
from vscsihba.transport import TaskManagement, Transport

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds from which on a command that was aborted counts as one whose storage does not answer."""

_GIVEN_UP: Final = scsi.Sense(
    scsi.SenseKey.ABORTED_COMMAND, scsi.Asc.NO_ADDITIONAL_SENSE_INFORMATION
).encode()


def may_drop(function: str | None) -> bool:
    """Tell whether the senders of commands that a function ends do not take them for done.

    They have given up themselves (scsi_abort_command), or are told TASK ABORTED
    (core_tmr_drain_state_list with TAS).
    """
    return function in {"ABORT TASK", "PREEMPT AND ABORT"}


class Aborts:
    """Acts on task management requests; all of it on the pump's thread.

    Args:
        lun: For log lines.
        unit: Is reset.
        tasks: Its commands.
        transport: Where they are answered.
        calls: The LUN's calls into the pump.
        publish: Has what was answered published soon.
        free_kept: Frees a buffer in the kernel, by the number from `Transport.complete_keep_buf`.
    """

    def __init__(
        self,
        lun: int,
        unit: scsi.LogicalUnit,
        tasks: TaskSet,
        *,
        transport: Transport,
        calls: Calls,
        publish: Callable[[], None],
        free_kept: Callable[[int], None],
    ) -> None:
        self._lun = lun
        self._unit = unit
        self._tasks = tasks
        self._transport = transport
        self._calls = calls
        self._publish = publish
        self._free_kept = free_kept
        self._latest_reset: object = None
        self._kept: dict[Task, int] = {}
        self._timers: list[threading.Timer] = []

    def act(self, request: TaskManagement) -> None:
        """Act on a request: end what it names, now or when that has been done; reset the unit after that."""
        log.info("lun %d: %s of %d commands", self._lun, request.function, len(request.tags))
        if may_drop(request.function):
            for tag in self._tasks.drop(request.tags):
                self._transport.complete(tag, scsi.Status.TASK_ABORTED)
        for task in (named := self._tasks.find(request.tags)):
            task.aborted_by = task.aborted_by or request.function
        if request.function == "LOGICAL UNIT RESET":
            self._unit.forget_events()  # whoever is told of one now would take the refusal for "done"
            self._latest_reset = reset = object()
            self._tasks.add(Task(None, b"", Buffer(), self._reset(reset)))
        self._give_up([task for task in named if time.monotonic() - task.started >= PATIENCE])
        if self._tasks.find(request.tags):
            self._look_again(request)

    def _reset(self, reset: object) -> Generator[BlockOp, BlockResult, None]:
        """Reset the unit, once for all resets that have come before it was this one's turn."""
        if reset is self._latest_reset:
            self._unit.reset()
        yield from ()

    def _look_again(self, request: TaskManagement) -> None:
        """Give up, in a while, what is still under way then; tags may be other commands' by that time."""

        def look() -> None:
            tasks = self._tasks.find(request.tags)
            self._give_up([task for task in tasks if task.aborted_by is not None])
            self._publish()

        self._timers = [timer for timer in self._timers if timer.is_alive()]
        timer = threading.Timer(PATIENCE, partial(self._calls.post, look))
        timer.daemon = True
        try:
            threads.start(timer)
        except OSError as error:  # then they are answered when the storage answers
            log.warning("lun %d: aborted commands are not given up: %s", self._lun, error)
        else:
            self._timers.append(timer)

    def close(self) -> None:
        """Look no more."""
        for timer in self._timers:
            timer.cancel()

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
        """Answer a command that somebody still works for, or will."""
        assert task.tag is not None  # noqa: S101 - only commands can be named
        try:
            kept = self._transport.complete_keep_buf(task.tag, _GIVEN_UP)
        except TransportError:  # a kernel that cannot keep the buffer: it ends when it is done
            return
        log.warning(
            "lun %d: %s was aborted after %.1f s, and its storage has not answered; the unit waits for it",
            self._lun,
            task.name,
            age,
        )
        self._tasks.abandon(task, stop=may_drop(task.aborted_by))
        if kept is not None:
            self._kept[task] = kept

    def ended(self, task: Task, response: scsi.Response | None) -> None:
        """Take in the end of a command that was aborted."""
        if not may_drop(task.aborted_by) and response and response.status != scsi.Status.GOOD:
            log.error(
                "lun %d: %s has failed after a %s, so its sender may take it for done: %s",
                self._lun,
                task.name,
                task.aborted_by,
                scsi.describe_sense(response.sense) if response.sense else scsi.status_name(response.status),
            )
            if self._unit.stores(task.cdb):
                self._unit.failed_flush.note(f"{task.name} failed after a {task.aborted_by}")
        if (kept := self._kept.pop(task, None)) is not None:
            self._free(kept)

    def _free(self, kept: int) -> None:
        """Give the buffer of an abandoned command back; a reset of the ring may have done so before."""
        try:
            self._free_kept(kept)
        except (HostError, TransportError) as error:
            log.warning("lun %d: the buffer of an aborted command: %s", self._lun, error)
