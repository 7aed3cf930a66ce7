"""One logical unit being served: ring, SCSI state, medium and threads put together.

All of it runs on the pump's thread except the verbs of the medium that may block. A
command that must not overlap others (`exclusive`) waits until those under way have
ended, and keeps newer ones waiting until it has.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial

from vscsihba import scsi
from vscsihba.block import BlockOp, BlockResult, Buffer
from vscsihba.engine.mailbox import Mailbox
from vscsihba.engine.perform import perform
from vscsihba.engine.short_cut import Road, make_cut
from vscsihba.engine.workers import Workers
from vscsihba.errors import TransportError
from vscsihba.handlers.base import Handler
from vscsihba.stats import LunStats
from vscsihba.trace import TraceRecord, TraceSink
from vscsihba.transport import TaskManagement, Transport

log = logging.getLogger(__name__)

_FAILED = scsi.Response(
    scsi.Status.CHECK_CONDITION,
    scsi.Sense(scsi.SenseKey.HARDWARE_ERROR, scsi.Asc.INTERNAL_TARGET_FAILURE).encode(),
)


@dataclass(slots=True, eq=False)
class Task:
    """One SCSI command on its way, or (without a tag) work that goes on after one was answered."""

    tag: int | None
    cdb: bytes
    buffer: Buffer
    command: Generator[BlockOp, BlockResult, scsi.Response | None]
    exclusive: bool = False
    started: float = field(default_factory=time.monotonic)


class ServedLun:
    """A logical unit and its ring; what the pump serves.

    Args:
        lun: Its number on the HBA.
        transport: Its ring.
        unit: Its SCSI state.
        medium: An open handler stack.
        mailbox: The pump's.
        stats: Counters, the same that `unit` reports from.
        trace: Told of every finished command, if given; the short cut is then not taken.
        on_failure: Told, in a line of text, when the ring can no longer be served.
    """

    def __init__(
        self,
        lun: int,
        transport: Transport,
        unit: scsi.LogicalUnit,
        medium: Handler,
        mailbox: Mailbox,
        *,
        stats: LunStats,
        trace: TraceSink | None = None,
        on_failure: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.lun = lun
        self.name = f"lun {lun}"
        self.transport = transport
        self.unit = unit
        self.medium = medium
        self.stats = stats
        self.failure: TransportError | None = None
        self.fileno = transport.fileno
        self._mailbox = mailbox
        self._trace = trace
        self._on_failure = on_failure
        self._workers: Workers[BlockResult] = Workers(f"lun{lun}", medium.workers, mailbox)
        self._road = Road()
        self.cut = make_cut(transport.memory, self._road, unit, medium.inline, stats)
        self._waiting: deque[Task] = deque()
        self._running = self._background = 0
        self._exclusive = self._closed = False
        self._publishing = self._starting = False
        self._idle: Callable[[], None] | None = None
        self._keep_road()

    # The pump's side.

    def serve(self) -> None:
        """Answer what waits in the ring; see `vscsihba.engine.pump.Served`."""
        self.transport.acknowledge()
        self.transport.drain(self.cut, self.accept)
        while requests := self.transport.take_management():
            for request in requests:
                self._manage(request)
            self.transport.drain(self.cut, self.accept)
        self.transport.publish()
        self.stats.batches += 1

    def failed(self, error: TransportError) -> None:
        """Remember why the ring can no longer be served."""
        self.failure = error
        log.error("lun %d: not served any longer: %s", self.lun, error)
        self._on_failure(f"lun {self.lun}: {error}")

    def finish(self, idle: Callable[[], None]) -> None:
        """Close the ring once no verb touches its memory any more, then call `idle`.

        The pump must have let go before.
        """
        self._idle = idle
        self._settle()

    @property
    def busy(self) -> bool:
        """Tell whether commands are under way or waiting for others."""
        return bool(self._running or self._waiting)

    # Commands.

    def accept(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        """Take a command on the long road; see `vscsihba.transport.Accept`."""
        buffer = Buffer(views)
        row = scsi.lookup(cdb)
        task = Task(tag, cdb, buffer, self.unit.execute(cdb, buffer))
        task.exclusive = row is not None and row.exclusive
        self._waiting.append(task)
        self._start_waiting()

    def _start_waiting(self) -> None:
        """Start waiting commands, in order, as far as exclusive ones allow."""
        if self._starting:  # called from within: the loop below goes on by itself
            return
        self._starting = True
        while self._waiting and not self._exclusive:
            task = self._waiting[0]
            if task.exclusive and self._running:
                break
            self._waiting.popleft()
            self._running += 1
            self._exclusive = task.exclusive
            self._keep_road()
            self._advance(task, None, None)
        self._starting = False
        self._keep_road()

    def _advance(self, task: Task, value: BlockResult, error: Exception | None) -> None:
        """Run a command until it ends or waits for a thread."""
        if task.tag is None and self._idle is not None:  # nobody waits for it, and the ring is to be closed
            task.command.close()
            self._end(task, None)
            return
        try:
            op = _resume(task.command, value, error)
            while self.medium.never_blocks:
                value, error = self._perform_inline(op)
                if task.tag is None:  # commands first
                    self._mailbox.post(partial(self._advance, task, value, error))
                    return
                op = _resume(task.command, value, error)
        except StopIteration as stop:
            self._end(task, stop.value)
        except Exception:  # the barrier: no command of a guest's ends an engine
            log.exception("lun %d: %s failed inside", self.lun, scsi.describe(task.cdb)[0])
            self._end(task, _FAILED)
        else:
            self.stats.waits += 1
            self._workers.submit(partial(perform, self.medium, op), partial(self._back, task))

    def _perform_inline(self, op: BlockOp) -> tuple[BlockResult, OSError | None]:
        try:
            return perform(self.medium, op), None
        except OSError as error:
            return None, error

    def _back(self, task: Task, value: BlockResult, error: Exception | None) -> None:
        """Go on with a command whose block operation a thread has done."""
        self._advance(task, value, error)
        self._publish_later()

    def _end(self, task: Task, response: scsi.Response | None) -> None:
        """Answer a command that has run to its end, and let others begin."""
        if task.tag is not None and response is not None:
            self.transport.complete(task.tag, response.status, response.sense, response.data_in)
            if self._trace is not None:
                self._trace(self._record(task, response))
            if response.background is not None:
                follow_up = Task(None, task.cdb, Buffer(), response.background)
                self._background += 1
                self._mailbox.post(partial(self._advance, follow_up, None, None))
        if task.tag is None:
            self._background -= 1
        else:
            self._running -= 1
            self._exclusive = self._exclusive and not task.exclusive
        self._start_waiting()
        self._settle()

    # State.

    def _keep_road(self) -> None:
        """Say again whether the short cut may be taken."""
        road, unit = self._road, self.unit
        road.clear = unit.clear_road and self._trace is None and not self._exclusive and not self._waiting
        road.writable = unit.writable and not unit.write_through
        road.blocks = unit.blocks

    def _publish_later(self) -> None:
        """Publish once for all the answers that threads have brought in together."""
        if not self._publishing:
            self._publishing = True
            self._mailbox.later(self._publish)

    def _publish(self) -> None:
        self._publishing = False
        if self._closed:
            return
        try:
            self.transport.publish()
        except TransportError as error:
            self.failed(error)

    def _settle(self) -> None:
        """Close everything if that was asked for and no command is under way."""
        if self._idle is None or self._running or self._background:
            return
        self._publish()
        self._closed = True
        self._workers.close()
        self.transport.close()
        idle, self._idle = self._idle, None
        idle()

    def _manage(self, request: TaskManagement) -> None:
        """Act on a task management request: what has not begun never will."""
        log.info("lun %d: %s of %d commands", self.lun, request.function, len(request.tags))
        for task in [task for task in self._waiting if task.tag in request.tags]:
            self._waiting.remove(task)
            task.command.close()
            if task.tag is not None:
                self.transport.complete(task.tag, scsi.Status.TASK_ABORTED)
        if request.function == "LOGICAL UNIT RESET":
            self.unit.reset()
        self._start_waiting()

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


def _resume(
    command: Generator[BlockOp, BlockResult, object], value: BlockResult, error: Exception | None
) -> BlockOp:
    """Send the result of a block operation into a command and return its next operation."""
    return command.send(value) if error is None else command.throw(error)
