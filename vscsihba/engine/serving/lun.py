"""One logical unit being served: ring, SCSI state, medium and threads put together.

All of it runs on the pump's thread except the verbs of the medium that may block. An exception of a
command is the barrier's in `task_set`; any other exception fails this unit, and no other.
"""

import errno
import logging
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from functools import partial

from vscsihba import scsi
from vscsihba.block import BlockOp, BlockResult, Buffer, MediumOp, Resize
from vscsihba.engine.serving.aborts import Aborts
from vscsihba.engine.serving.call_queue import CallQueue, GuardedCalls
from vscsihba.engine.serving.fast_path import FastPathState, make_fast_path
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.perform import perform
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.task import Task, visiting
from vscsihba.engine.serving.task_set import FAILED, TaskSet
from vscsihba.engine.serving.units_of_hba import Done, UnitsOfHba
from vscsihba.engine.serving.workers import Workers
from vscsihba.errors import EngineFaultError, HostError, TransportError, VscsihbaError
from vscsihba.handlers.base import Handler
from vscsihba.stats import LunStats
from vscsihba.trace import TraceRecord
from vscsihba.transport import Recovered, Transport

log = logging.getLogger(__name__)

_MAY_HAVE_RUN = scsi.Sense(scsi.SenseKey.ABORTED_COMMAND, scsi.Asc.INTERNAL_TARGET_FAILURE).encode()
"""To the initiator of a command that must not run twice, and may have run once."""

BATCH = 16
"""Commands that are answered with one notification, at most: the initiator goes on with them meanwhile."""


class ServedLun:
    """A logical unit and its ring; what the pump serves.

    Args:
        lun: Its number on the HBA.
        transport: Its ring.
        unit: Its SCSI state.
        handler: An open handler stack.
        calls: The pump's.
        stats: Counters, the same that `unit` reports from.
        listeners: Who is told of commands (the fast path is then not taken) and failures.
        units: The units of its HBA that are served by the same pump.
        keep: Stores what the unit keeps for its next life, on a thread that may block.
        free_kept: Frees a buffer in the kernel, by the number from `Transport.complete_keep_buf`.
    """

    def __init__(
        self,
        lun: int,
        transport: Transport,
        unit: scsi.LogicalUnit,
        handler: Handler,
        calls: CallQueue,
        *,
        stats: LunStats,
        listeners: Listeners,
        units: UnitsOfHba | None = None,
        keep: Callable[[bytes], None] = lambda _state: None,
        free_kept: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self.lun = lun
        self.name = f"lun {lun}"
        self.transport = transport
        self.unit = unit
        self.handler = handler
        self.stats = stats
        self.failure: TransportError | None = None
        self._broken: TransportError | None = None
        self.fileno, self.acknowledge, self.pending = (
            transport.fileno,
            transport.acknowledge,
            transport.pending,
        )
        self._calls = GuardedCalls(calls, self._fail)
        self._pump: Pump | None = None
        self._listeners = listeners
        self._trace = listeners.trace
        self._units = units or UnitsOfHba()
        self._workers: Workers[BlockResult] = Workers(f"lun{lun}", handler.workers, self._calls)
        self.perform = partial(perform, handler, keep=keep)
        self.visit_other, self.before_change = self._units.visit, transport.begun
        self._tasks = TaskSet(
            lun, self, inline=handler.never_blocks, workers=self._workers, calls=self._calls, stats=stats
        )
        self._aborts = Aborts(
            lun,
            unit,
            self._tasks,
            transport=transport,
            calls=self._calls,
            publish=self._publish_soon,
            free_kept=free_kept,
        )
        self._state = FastPathState()
        self.fast_path, self.end_batch = make_fast_path(
            transport.memory, self._state, unit, handler.inline, stats
        )
        self._serving = self._publishing = self._closed = False
        self._idle: Callable[[], None] | None = None
        self._update_fast_path()

    # The pump's side.

    def begin(self, pump: Pump, recovered: Sequence[Recovered] = ()) -> None:
        """Meet the neighbours, go on with what a predecessor had under way, and be served by `pump`."""
        self._pump = pump
        self._calls.make(partial(self._begin, pump, recovered))

    def _begin(self, pump: Pump, recovered: Sequence[Recovered]) -> None:
        self._units.enter(self.lun, self.unit, self.visit)
        for command in recovered:
            if command.begun:
                self.transport.complete(command.tag, scsi.Status.CHECK_CONDITION, _MAY_HAVE_RUN)
            else:
                self.accept(command.tag, command.cdb, command.views)
        pump.add(self)

    def serve(self) -> int:
        """Answer what waits in the ring, up to a batch; see `vscsihba.engine.serving.pump.Served`."""
        self._serving = True
        try:
            count = self.transport.drain(self.fast_path, self.accept, BATCH)
            self.end_batch()
            for request in self.transport.take_management():
                self._aborts.act(request)
                self._update_fast_path()
            if not self._state.clear:
                self._tasks.start_waiting()
                self._update_fast_path()
        finally:
            self._serving = False
        self._show()
        self.stats.batches += 1
        return count

    def accept(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        """Take a command on the slow path; see `vscsihba.transport.Accept`."""
        try:
            task = Task.of(self.unit, tag, cdb, views)
        except Exception:  # a part of the barrier of `task_set`: it is one command that fails
            log.exception("lun %d: command %s cannot be taken", self.lun, cdb[:1].hex())
            self._complete(tag, FAILED)
            return
        self._tasks.add(task)
        self._update_fast_path()

    def failed(self, error: TransportError) -> None:
        """Remember why the ring can no longer be served."""
        if self.failure is not None:
            return
        self.failure = error
        log.error("lun %d: not served any longer: %s", self.lun, error)
        self._listeners.failed(f"lun {self.lun}: {error}")
        self._calls.post(self._publish)  # what was answered before
        self._tasks.drop_visits(OSError(errno.ENOTCONN, f"LUN {self.lun} has failed"))

    def _fail(self, error: Exception) -> None:
        """Serve this unit no longer: the code that serves it has failed."""
        log.error("lun %d: its server has failed", self.lun, exc_info=error)
        if self._pump is not None:
            self._pump.remove(self)
        self.failed(error if isinstance(error, TransportError) else EngineFaultError(error))

    def end(self, pump: Pump, idle: Callable[[], None]) -> None:
        """Take leave of the neighbours and the pump, then `finish`."""
        self._units.leave(self.lun)
        pump.remove(self)
        self._calls.make(partial(self.finish, idle))

    def finish(self, idle: Callable[[], None]) -> None:
        """Close the ring once no verb touches its memory any more, then call `idle`.

        The pump must have let go before.
        """
        self._idle = idle
        self._tasks.closing = True
        self._calls.later(self._publish)
        self._tasks.start_waiting()

    def visit(self, operation: MediumOp, done: Done) -> None:
        """Do a block operation of another unit's command, as this unit's work; see `units_of_hba.Visit`."""
        if self.failure is not None:
            done(None, OSError(errno.ENOTCONN, f"LUN {self.lun} has failed"))
        else:
            self._calls.make(partial(self._take_visit, operation, self.unit.notice, done))

    def visit_self(self, operation: MediumOp, done: Done) -> None:
        """Do a block operation of a command of this unit that was answered: it was noticed before."""
        self._take_visit(operation, _unnoticed, done)

    def _take_visit(self, operation: MediumOp, notice: Callable[[MediumOp], None], done: Done) -> None:
        task = Task(None, b"", Buffer(), visiting(operation, notice, done))
        self._tasks.visit(task, done)
        self._update_fast_path()

    def resize(self, size: int, done: Future[None]) -> None:
        """Change the capacity of the medium between two commands; initiators learn that it has changed.

        Args:
            size: Bytes.
            done: Told how it went: OSError or UsageError of the medium. It can be cancelled until the
                commands before it have ended.
        """
        self._calls.make(partial(self._add_resize, size, done))

    def _add_resize(self, size: int, done: Future[None]) -> None:
        self._tasks.add(Task(None, b"", Buffer(), self._resizing(size, done), exclusive=True))
        self._update_fast_path()

    def reshape(self) -> None:
        """Let initiators learn that the medium has another size already."""
        self._calls.make(self._reshape)

    def _reshape(self) -> None:
        self.unit.resize(self.handler.geometry)
        self._update_fast_path()

    def _resizing(self, size: int, done: Future[None]) -> Generator[BlockOp, BlockResult, None]:
        if not done.set_running_or_notify_cancel():
            return
        try:
            yield Resize(size)
            self.unit.resize(self.handler.geometry)
        except (OSError, VscsihbaError) as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        finally:
            if not done.done():
                done.set_exception(HostError(f"lun {self.lun}: the resize failed inside", cure="see the log"))

    @property
    def busy(self) -> bool:
        """Tell whether anything is under way or waits."""
        return not self._tasks.idle

    @property
    def hung(self) -> bool:
        """Tell whether its storage has not answered an abandoned command: nothing begins until it does."""
        return self._tasks.hung

    # Ends of commands.

    def task_ended(self, task: Task, response: scsi.Response | None) -> None:
        """Answer a command that has run to its end, or learn that nobody works for it any more."""
        if task.aborted_by is not None:
            self._aborts.ended(task, response)
        if task.tag is not None and response is not None:
            if not task.abandoned:
                self._complete(task.tag, response)
            if self._trace is not None:
                self._trace(self._record(task, response))
            if response.background is not None:
                self._tasks.go_on(Task(None, task.cdb, Buffer(), response.background))
        self._publish_soon()

    def _publish_soon(self) -> None:
        """Publish once for all that threads bring in together; `serve` and `accept` do so themselves."""
        if not (self._serving or self._publishing):
            self._publishing = True
            self._calls.later(self._publish)

    def held(self) -> bool:
        """Tell whether the next command, to be refused for an event, must wait for what the ring holds.

        If that is a reset which ends the command, its sender will take the refusal for "done" (`aborts`).
        """
        return self.unit.has_events and self._idle is None and self.pending()

    def _complete(self, tag: int, response: scsi.Response) -> None:
        """Answer a command; where the ring does not take it, `_show` says so, and no count is off."""
        try:
            self.transport.complete(tag, response.status, response.sense, response.data_in)
        except TransportError as error:
            self._broken = self._broken or error

    def _show(self) -> None:
        """Publish what was answered.

        Raises:
            TransportError: The ring cannot be served any longer.
        """
        if self._broken is not None:
            raise self._broken
        self.transport.publish()

    def _publish(self) -> None:
        """Publish what was answered meanwhile; close everything if that was asked for and nothing is left."""
        self._publishing = False
        if self._closed:
            return
        self._update_fast_path()
        try:
            self._show()
        except TransportError as error:
            self.failed(error)
        if self._idle is not None and self._ended_all:
            self._closed = True
            self._aborts.close()
            self._workers.close()
            self.transport.close()
            self._idle()

    @property
    def _ended_all(self) -> bool:
        """Nothing is under way; after a failure, tasks may never end, and only what threads do counts."""
        return self._tasks.idle or (self.failure is not None and not self._workers.busy)

    def _update_fast_path(self) -> None:
        """Say again whether the fast path may be taken."""
        state, unit = self._state, self.unit
        state.clear = unit.fast_path_clear and self._trace is None and self._tasks.clear
        state.writable = unit.writable and not unit.write_through
        state.blocks = unit.blocks

    def _record(self, task: Task, response: scsi.Response) -> TraceRecord:
        name, detail = scsi.describe(task.cdb)
        return TraceRecord(
            lun=self.lun,
            name=name,
            cdb=task.cdb,
            detail=detail,
            status=scsi.status_name(response.status),
            sense=scsi.describe_sense(response.sense) if response.sense else "",
            length=task.buffer.length,
            seconds=time.monotonic() - task.started,
        )


def _unnoticed(_operation: MediumOp) -> None:
    """Tell nobody: it was told before."""
