"""One logical unit that is served: its ring, SCSI state, handler stack and threads.

All of it runs on the pump's thread, except verbs of the handler that may block. An exception of a command is
caught by the barrier in `task_set`; any other exception fails this unit, and no other.
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
from vscsihba.engine.serving.async_operations import AsyncOperations
from vscsihba.engine.serving.async_path import AsyncPath
from vscsihba.engine.serving.call_queue import CallQueue, GuardedCalls
from vscsihba.engine.serving.fast_path import FastPathState, make_fast_path
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.perform import perform
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.tap import Tap
from vscsihba.engine.serving.task import Task, visiting
from vscsihba.engine.serving.task_set import FAILED, TaskSet
from vscsihba.engine.serving.threaded_verbs import threaded_verbs
from vscsihba.engine.serving.units_of_hba import Done, UnitsOfHba
from vscsihba.engine.serving.workers import Workers
from vscsihba.errors import EngineFaultError, HostError, TransportError, VscsihbaError
from vscsihba.handlers.base import Handler
from vscsihba.latency import BatchLatency, Latencies
from vscsihba.stats import LunStats, Tally
from vscsihba.transport import Recovered, Transport

log = logging.getLogger(__name__)

_MAY_HAVE_RUN = scsi.Response(
    scsi.Status.CHECK_CONDITION,
    scsi.Sense(scsi.SenseKey.ABORTED_COMMAND, scsi.Asc.INTERNAL_TARGET_FAILURE).encode(),
)
"""Answer to a non-idempotent command that the last owner may have executed."""

_GOOD = scsi.Status.GOOD
"""Once for all commands: to look up a member of an enumeration takes time."""
BATCH = 16
"""Commands that are answered with one notification, at most; the initiator handles them in the meantime."""


class ServedLun:
    """A logical unit and its ring, served by the pump.

    Args:
        lun: Its number on the HBA.
        transport: Its ring.
        unit: Its SCSI state.
        handler: An open handler stack.
        calls: The call queue of the pump.
        stats: Counters, shared with `unit`, which reports them.
        latencies: Its histograms; by default they begin with this object.
        keep_stats: Stores the counters.
        listeners: Told of failures; has the taps that this unit's tap joins while it is served.
        units: The units of its HBA that are served by the same pump.
        keep: Stores the saved state of the unit, on a thread that may block.
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
        latencies: Latencies | None = None,
        keep_stats: Callable[[], None] = lambda: None,
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
        self.latencies = latencies or Latencies()
        self._batch = BatchLatency(stats, self.latencies, keep_stats)
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
        inquiry = bytes([handler.capabilities.device_type]) + unit.inquiry_data[1:]
        self.tap = Tap(lun, inquiry, unit.block_size)
        self.tap.changed = self._choose_fast_path
        self._units = units or UnitsOfHba()
        self._workers: Workers[BlockResult] = Workers(f"lun{lun}", handler.workers, self._calls)
        verbs = handler.asynchronous if not handler.never_blocks else None
        self._pollable = verbs.pollable if verbs is not None else None
        self._asynchronous = AsyncOperations(self.name, verbs, self._calls) if verbs is not None else None
        self.perform = partial(perform, handler, keep=keep)
        self.visit_other, self.before_change = self._units.visit, transport.begun
        self._tasks = TaskSet(
            lun,
            self,
            inline=handler.never_blocks,
            asynchronous=self._asynchronous,
            workers=self._workers,
            calls=self._calls,
            stats=stats,
        )
        self._aborts = Aborts(
            lun,
            unit,
            self._tasks,
            transport=transport,
            tap=self.tap,
            calls=self._calls,
            publish=self._publish_soon,
            free_kept=free_kept,
        )
        self._state = FastPathState()
        if verbs is None and not handler.never_blocks:
            verbs = threaded_verbs(self.perform, self._workers, stats)
        self._async_path = (
            AsyncPath(
                self.name,
                unit,
                verbs,
                self._state,
                tasks=self._tasks,
                calls=self._calls,
                tap=self.tap,
                complete=self._complete_good,
                otherwise=self._accept,
                stats=stats,
                latencies=self.latencies,
            )
            if verbs is not None
            else None
        )
        self.accept = self._accept if self._async_path is None else self._async_path.accept
        inline = handler.inline
        fast_path = make_fast_path(transport.memory, self._state, unit, inline, stats)
        self._plain_fast_path = fast_path.execute if inline.read or inline.write else None
        self._choose_fast_path()
        self.end_batch = fast_path.end_batch
        self._serving = self._publishing = self._closed = False
        self._idle: Callable[[], None] | None = None
        self._update_fast_path()

    # Called by the pump.

    def begin(self, pump: Pump, recovered: Sequence[Recovered] = ()) -> None:
        """Join the units of the HBA, take the commands left by the last owner, be served by `pump`."""
        self._pump = pump
        self._calls.make(partial(self._begin, pump, recovered))

    def _begin(self, pump: Pump, recovered: Sequence[Recovered]) -> None:
        self._units.enter(self.lun, self.unit, self.visit)
        self._listeners.taps.enter(self.tap)
        if self._pollable is not None:
            pump.watch(self._pollable, self._fail)
        for command in recovered:
            if command.begun:
                self._refuse(command.tag, command.cdb, command.views, _MAY_HAVE_RUN)
            else:
                self.accept(command.tag, command.cdb, command.views)
        pump.add(self)

    def serve(self) -> int:
        """Serve the ring, up to a batch of commands; see `vscsihba.engine.serving.pump.Served`."""
        self._serving, pollable = True, self._pollable
        timed = not self.stats.batches & self._batch.mask
        if timed:
            self._batch.begin()
        if pollable is not None:
            pollable.cork()
        try:
            count = self.transport.drain(self.fast_path, self.accept, BATCH)
            if self.fast_path is not None:
                self.end_batch()
            for request in self.transport.take_management():
                self._aborts.act(request)
                self._update_fast_path()
            if not self._state.clear:
                self._tasks.start_waiting()
                self._update_fast_path()
        finally:
            self._serving = False
            if pollable is not None:
                pollable.uncork()
        if self._broken is not None:
            raise self._broken
        self.transport.publish()
        if timed:
            self._batch.end()
        self.stats.batches += 1
        return count

    def _accept(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        """Take a command on the slow path; see `vscsihba.transport.Accept`."""
        try:
            task = Task.of(self.unit, tag, cdb, views)
        except Exception:  # belongs to the barrier of `task_set`: only this command fails
            log.exception("lun %d: command %s failed before its start", self.lun, cdb[:1].hex())
            self._refuse(tag, cdb, views, FAILED)
            return
        self._tasks.add(task)
        self._update_fast_path()

    def _refuse(self, tag: int, cdb: bytes, views: list[memoryview], response: scsi.Response) -> None:
        self.tap.ended(tag, cdb, views, response, arrived=time.monotonic())
        self._complete(tag, response)

    def failed(self, error: TransportError) -> None:
        """Note why the ring can no longer be served, and report it."""
        if self.failure is not None:
            return
        self.failure = error
        log.error("lun %d: not served any longer: %s", self.lun, error)
        self._listeners.failed(f"lun {self.lun}: {error}")
        self._calls.post(self._publish)  # the answers given before
        self._tasks.drop_visits(OSError(errno.ENOTCONN, f"LUN {self.lun} has failed"))

    def _fail(self, error: Exception) -> None:
        """Stop serving this unit: the code that serves it has raised."""
        log.error("lun %d: internal error", self.lun, exc_info=error)
        if self._pump is not None:
            self._pump.remove(self)
        self.failed(error if isinstance(error, TransportError) else EngineFaultError(error))

    def end(self, pump: Pump, idle: Callable[[], None]) -> None:
        """Leave the units of the HBA and the pump, then `finish`."""
        self._units.leave(self.lun)
        self._listeners.taps.leave(self.tap)
        pump.remove(self)
        self._calls.make(partial(self.finish, idle))

    def finish(self, idle: Callable[[], None]) -> None:
        """Close the ring once no verb uses its memory, then call `idle`.

        The pump must have stopped serving it before.
        """
        self._idle = idle
        self._tasks.closing = True
        self._calls.later(self._publish)
        self._tasks.start_waiting()

    def visit(self, operation: MediumOp, done: Done) -> None:
        """Do a block operation for a command of another unit; see `units_of_hba.Visit`."""
        if self.failure is not None:
            done(None, OSError(errno.ENOTCONN, f"LUN {self.lun} has failed"))
        else:
            ended = partial(self._visit_ended, done)
            self._calls.make(partial(self._take_visit, operation, self.unit.notice, ended))

    def _visit_ended(self, done: Done, result: BlockResult, fault: Exception | None) -> None:
        self.unit.failed_flush.note_failure("a copy from another LUN", fault)
        done(result, fault)

    def visit_self(self, operation: MediumOp, done: Done) -> None:
        """Do a block operation of background work of this unit, whose tokens know of it already."""
        self._take_visit(operation, _unnoticed, done)

    def note_failed_flush(self, operation: str, fault: Exception, done: Callable[[], None]) -> None:
        """Have the next flush report the failure of an operation beside the commands, if it was a flush's.

        Args:
            operation: For messages.
            fault: The failure.
            done: Called once that is recorded.
        """
        self._calls.make(partial(self.unit.failed_flush.note_failure, operation, fault))
        done()

    def _take_visit(self, operation: MediumOp, notice: Callable[[MediumOp], None], done: Done) -> None:
        task = Task(None, b"", Buffer(), visiting(operation, notice, done))
        self._tasks.visit(task, done)
        self._update_fast_path()

    def resize(self, size: int, done: Future[None]) -> None:
        """Change the capacity between two commands, and tell the initiators by a unit attention.

        Args:
            size: Bytes.
            done: Gets the result: None, or the handler's OSError or UsageError. It can be cancelled until
                the commands before it have ended.
        """
        self._calls.make(partial(self._add_resize, size, done))

    def _add_resize(self, size: int, done: Future[None]) -> None:
        self._tasks.add(Task(None, b"", Buffer(), self._resizing(size, done), exclusive=True))
        self._update_fast_path()

    def give_up_old(self) -> None:
        """End the commands that storage has not answered for some seconds; see `Aborts.give_up_old`."""
        self._calls.make(self._give_up_old)

    def _give_up_old(self) -> None:
        self._aborts.give_up_old()
        self._update_fast_path()

    def clear_statistics(self, done: Callable[[], None]) -> None:
        """Count commands, bytes and latencies from zero again, also in the log pages; then call `done`."""
        self._calls.make(partial(self._clear_statistics, done))

    def _clear_statistics(self, done: Callable[[], None]) -> None:
        self.stats.clear()
        self.unit.counters.clear()
        self.latencies.clear()
        self._batch.clear()
        done()

    def reshape(self) -> None:
        """Take over the size that the handler has already, and tell the initiators by a unit attention."""
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
            self.unit.failed_flush.note_failure("a resize", error)
            done.set_exception(error)
        else:
            done.set_result(None)
        finally:
            if not done.done():
                done.set_exception(
                    HostError(f"lun {self.lun}: the resize failed with an internal error", cure="see the log")
                )

    @property
    def busy(self) -> bool:
        """Whether commands are under way or wait."""
        return not self._tasks.idle

    @property
    def on_threads(self) -> bool:
        """Whether commands are under way on other threads; see `vscsihba.engine.serving.pump.Served`."""
        return self._pollable is None and not self._tasks.idle

    @property
    def hung(self) -> bool:
        """Whether an abandoned command still waits for its storage: no other command begins until then."""
        return self._tasks.hung

    # Ends of commands.

    def task_ended(self, task: Task, response: scsi.Response | None) -> None:
        """Complete a command that has ended; an abandoned one was completed before."""
        if task.aborted_by is not None:
            self._aborts.ended(task, response)
        if task.tag is not None and response is not None:
            if not task.abandoned:
                if self.tap.observers:
                    task.show(self.tap, response)
                self._complete(task.tag, response)
            if not self._serving:  # the others are measured with their batch
                tally = task.tally if response.status is _GOOD else Tally.OTHERS
                self.latencies.add(tally, time.monotonic() - task.started)
            if response.background is not None:
                self._tasks.go_on(Task(None, task.cdb, Buffer(), response.background))
        self._publish_soon()

    def _publish_soon(self) -> None:
        """Publish once for all results of this round; `serve` and `accept` publish by themselves."""
        if not (self._serving or self._publishing):
            self._publishing = True
            self._calls.later(self._publish)

    def held(self) -> bool:
        """Return whether the next command, to be refused with a unit attention, must wait for the ring.

        If the ring holds a reset that aborts it, its sender takes the refusal for success (`aborts`).
        """
        return self.unit.has_events and self._idle is None and self.pending()

    def _complete(self, tag: int, response: scsi.Response) -> None:
        """Complete a command; an error of the ring fails the unit when it publishes, so no count is wrong."""
        try:
            if response.status is _GOOD:
                self.transport.complete_good(((tag, response.data_in or 0),))
            else:
                self.transport.complete(tag, response.status, response.sense, response.data_in)
        except TransportError as error:
            self._broken = self._broken or error

    def _complete_good(self, commands: list[tuple[int, int]]) -> None:
        """Complete plain commands, and publish them; errors as in `_complete`."""
        try:
            self.transport.complete_good(commands)
            if self._state.clear and self._idle is None and self._broken is None:
                self.transport.publish()
                return
        except TransportError as error:
            self._broken = self._broken or error
        self._publish_soon()

    def _publish(self) -> None:
        """Publish the answers given so far; after `finish`, close the unit once nothing is under way."""
        self._publishing = False
        if self._closed:
            return
        self._update_fast_path()
        try:
            if self._broken is not None:
                raise self._broken
            self.transport.publish()
        except TransportError as error:
            self.failed(error)
        if self._idle is not None and self._ended_all:
            self._closed = True
            if self._pump is not None and self._pollable is not None:
                self._pump.unwatch(self._pollable)
            self._aborts.close()
            self._workers.close()
            self.transport.close()
            self._idle()

    @property
    def _ended_all(self) -> bool:
        """Whether nothing is under way; after a failure tasks may never end, and only busy storage counts."""
        busy = self._workers.busy or (self._asynchronous is not None and self._asynchronous.busy)
        busy = busy or (self._async_path is not None and self._async_path.busy)
        return self._tasks.idle or (self.failure is not None and not busy)

    def _update_fast_path(self) -> None:
        """Update the conditions of the fast path."""
        state, unit = self._state, self.unit
        state.clear = unit.fast_path_clear and self._tasks.clear
        state.writable = unit.writable and not unit.write_through
        state.blocks = unit.blocks

    def _choose_fast_path(self) -> None:
        """Take the fast path without a record of each command, unless somebody observes them."""
        plain = self._plain_fast_path
        observed = plain is not None and self.tap.observers
        self.fast_path = self.tap.around(plain, self.transport.memory) if plain and observed else plain


def _unnoticed(_operation: MediumOp) -> None:
    """Do nothing: the unit has noticed the operation before."""
