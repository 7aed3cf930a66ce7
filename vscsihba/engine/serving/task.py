"""One SCSI command on its way through an engine, and block operations for other units."""

import errno
import time
from collections.abc import Callable, Generator

from vscsihba import scsi
from vscsihba.block import BlockOp, BlockResult, Buffer, MediumOp
from vscsihba.engine.serving.tap import Tap
from vscsihba.records import UNKNOWN
from vscsihba.stats import Tally


class Task:
    """A command; without a tag, work of the engine itself or background work of an answered command.

    Attributes:
        tag: Names the command to the transport; None if there is none to answer.
        cdb: The command descriptor block.
        buffer: Its data buffer.
        command: The generator that executes it.
        exclusive: It must not overlap any other command of the logical unit.
        alone: It begins after all older commands have ended; newer ones may begin when it has begun.
        follows: It is background work of an answered command: commands take precedence.
        non_idempotent: It must not run twice, and has not changed data yet.
        aborted_by: The task management function that has aborted it, None if none has.
        abandoned: It was answered before its end.
        stopped: It ends with the block operation under way.
        tally: The counter that it belongs to.
        started: Time of its arrival, in seconds of CLOCK_MONOTONIC.
        begun: Time of its beginning, likewise; `UNKNOWN` unless somebody observes commands.
        storage: Seconds that its block operations took; `UNKNOWN` likewise.
        submitted: Time when the block operation under way was handed on.
    """

    # Defaults are attributes of the class: a task is made for each command.
    alone = False
    follows = False
    non_idempotent = False
    aborted_by: str | None = None
    abandoned = False
    stopped = False
    begun = storage = submitted = UNKNOWN
    tally = Tally.OTHERS

    def __init__(
        self,
        tag: int | None,
        cdb: bytes,
        buffer: Buffer,
        command: Generator[BlockOp, BlockResult, scsi.Response | None],
        *,
        exclusive: bool = False,
    ) -> None:
        self.tag = tag
        self.cdb = cdb
        self.buffer = buffer
        self.command = command
        self.exclusive = exclusive
        self.started = time.monotonic()

    @classmethod
    def of(cls, unit: scsi.LogicalUnit, tag: int, cdb: bytes, views: list[memoryview]) -> "Task":
        """Return the task that executes `cdb` on `unit`."""
        buffer = Buffer(views)
        row = scsi.lookup(cdb)
        task = cls(tag, cdb, buffer, unit.execute(cdb, buffer, row))
        task.non_idempotent = not unit.idempotent(cdb, row)
        if row is not None:
            task.exclusive, task.alone, task.tally = row.exclusive, row.starts_alone, row.tally
        return task

    def show(self, tap: Tap, response: scsi.Response) -> None:
        """Show the command and its answer to observers, before the answer is given."""
        if self.tag is not None:
            tap.ended(
                self.tag,
                self.cdb,
                self.buffer.views,
                response,
                arrived=self.started,
                begun=self.begun,
                storage=self.storage,
            )

    @property
    def name(self) -> str:
        """T10's name of the command."""
        return scsi.describe(self.cdb)[0]


def visiting(
    operation: MediumOp,
    notice: Callable[[MediumOp], None],
    done: Callable[[BlockResult, Exception | None], None],
) -> Generator[BlockOp, BlockResult, None]:
    """Do one block operation for a command of another unit, or for background work.

    Args:
        operation: The block operation.
        notice: Called with it when it begins.
        done: Called with its result or its error, once it has begun and then ended for whatever reason.
    """
    answer: tuple[BlockResult, Exception | None]
    answer = None, OSError(errno.ENOTCONN, "the operation was not finished")
    try:
        notice(operation)
        answer = (yield operation), None
    except OSError as error:
        answer = None, error
    finally:
        done(*answer)
