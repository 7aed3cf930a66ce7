"""One raw LUN, whose commands the caller answers: it turns the commands of a transport into tasks.

Any thread may collect and complete: a lock lets one at a time use the transport. Knows which commands are
open, not what they mean.
"""

import logging
import threading

from vscsihba import scsi
from vscsihba.block import Buffer
from vscsihba.engine.serving.tap import Tap, Taps
from vscsihba.errors import TransportError
from vscsihba.hba.task import Event, Management, Task
from vscsihba.transport import TaskManagement, Transport

log = logging.getLogger(__name__)

_LEFT = bytes((0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0))
"""Sense data after the caller has left: ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED, as for a LUN that
does not exist (SPC-5). Linux accepts it and does not retry."""

_INQUIRY, _EVPD = b"\x12", 1


class RawLun:
    """A raw LUN.

    Args:
        number: Number of the LUN.
        transport: Its ring.
        unit: The logical unit that `Task.answer_as` uses.
        taps: The taps of the HBA, which its own one joins until it is closed.

    Attributes:
        failed: The ring can no longer be served.
    """

    def __init__(self, number: int, transport: Transport, unit: scsi.LogicalUnit, taps: Taps) -> None:
        self.number = number
        self.unit = unit
        self.fileno = transport.fileno
        self._transport = transport
        self._lock = threading.Lock()
        self._taps = taps
        self._tap = Tap(number, unit.inquiry_data, unit.block_size)
        taps.enter(self._tap)
        self._open: dict[int, Task] = {}
        self._fresh: list[Event] = []
        self._ended: set[Task] = set()
        """Tasks that were open when a reset came: the unit is reset after they have ended."""
        self._abandoned = self._closed = False
        self.failed = False

    def collect(self) -> list[Event]:
        """Return the events since the last call, in order.

        Raises:
            TransportError: The ring cannot be served any longer.
        """
        with self._lock:
            if self._closed:
                return []
            try:
                self._drain()
            except TransportError:
                self.failed = True
                raise
            fresh, self._fresh = self._fresh, []
        return fresh

    def complete(self, task: Task, status: int, sense: bytes, data_in: int | None) -> None:
        """Answer a task; see `Task.complete`."""
        with self._lock:
            if self._open.get(task.tag) is not task:
                left = self._abandoned or self._closed
                raise TransportError(
                    f"command {task.tag} of LUN {self.number} is not open",
                    cure="its HBA is closed" if left and not task.done else "it was completed before",
                )
            self._answer(task, status, sense, data_in)
            self._transport.publish()

    def abandon(self) -> None:
        """Refuse the open commands and all that come: the caller has left.

        Raises:
            TransportError: The ring cannot be served any longer.
        """
        with self._lock:
            self._abandoned = True
            if not self._closed:
                self._refuse_open()

    def close(self) -> None:
        """Refuse the remaining commands, and close the ring; a second call has no effect."""
        with self._lock:
            if self._closed:
                return
            self._abandoned = self._closed = True
            try:
                if not self.failed:
                    self._drain()
                    self._refuse_open()
            except TransportError as error:
                log.debug("LUN %d: %s", self.number, error)
            for task in self._open.values():
                task.finish()
            self._open.clear()
            self._taps.leave(self._tap)
            self._transport.close()

    # The methods below are called with the lock held.

    def _drain(self) -> None:
        transport = self._transport
        transport.acknowledge()
        transport.drain(_no_fast_path, self._accept)
        while requests := transport.take_management():
            self._fresh += map(self._manage, requests)
            transport.drain(_no_fast_path, self._accept)
        transport.publish()

    def _accept(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        task = self._open[tag] = Task(self, tag, cdb, Buffer(views))
        if self._abandoned:
            self._answer(task, scsi.Status.CHECK_CONDITION, _LEFT, 0)
        else:
            self._fresh.append(task)

    def _refuse_open(self) -> None:
        for task in tuple(self._open.values()):
            self._answer(task, scsi.Status.CHECK_CONDITION, _LEFT, 0)
        self._transport.publish()

    def _answer(self, task: Task, status: int, sense: bytes, data_in: int | None) -> None:
        del self._open[task.tag]
        self._show(task, scsi.Response(scsi.Status(status), sense, data_in))
        try:
            self._transport.complete(task.tag, status, sense, data_in)
        finally:
            task.finish()
        if task in self._ended:
            self._ended.remove(task)
            if not self._ended:
                self.unit.reset()

    def _show(self, task: Task, response: scsi.Response) -> None:
        """Show a command to observers; note the LUN's standard INQUIRY data, which only the caller knows."""
        cdb, views = task.cdb, task.buffer.views
        if cdb[:1] == _INQUIRY and not cdb[1] & _EVPD and not response.status and response.data_in:
            self._tap.inquiry = b"".join(views)[: response.data_in]
        self._tap.ended(task.tag, cdb, views, response, arrived=task.arrived)

    def _manage(self, request: TaskManagement) -> Management:
        self._tap.managed(request)
        tasks = tuple(self._open[tag] for tag in request.tags if tag in self._open)
        for task in tasks:
            task.aborted = request.function
        if request.function == "LOGICAL UNIT RESET":
            self.unit.forget_events()  # a sender that is told of one now would take the refusal for success
            self._ended = {*self._open.values()}
            if not self._ended:
                self.unit.reset()
        return Management(self.number, request.function, tasks)


def _no_fast_path(_cdb_at: int, _views: list[memoryview], _length: int, _cmd_id: int) -> bool:
    return False
