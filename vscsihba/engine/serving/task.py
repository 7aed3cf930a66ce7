"""One SCSI command on its way through an engine."""

import errno
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from vscsihba import scsi
from vscsihba.block import (
    BlockOp,
    BlockResult,
    Buffer,
    CryptoErase,
    Execute,
    MediumOp,
    OnUnit,
    Unmap,
    Write,
    WriteZeroes,
)

CHANGES = (Write, WriteZeroes, Unmap, CryptoErase, OnUnit, Execute)
"""Block operations that change a medium."""


@dataclass(slots=True, eq=False)
class Task:
    """A command, or (without a tag) the engine's own work, or what goes on after a command was answered.

    Attributes:
        tag: What to answer; None if there is nobody to answer.
        cdb: The command descriptor block.
        buffer: Its data buffer.
        command: The command under way.
        exclusive: It must not overlap any other on the logical unit.
        alone: It begins when all that came before it has ended; what comes after may begin then.
        follows: It goes on after its command was answered: commands come before it.
        non_idempotent: It must not run twice, and has not changed the medium yet.
        aborted_by: The task management function that has ended it for its sender, if any has.
        abandoned: It was answered before it has ended.
        stopped: It goes no further than the block operation under way.
        started: When it was taken, in seconds of CLOCK_MONOTONIC.
    """

    tag: int | None
    cdb: bytes
    buffer: Buffer
    command: Generator[BlockOp, BlockResult, scsi.Response | None]
    exclusive: bool = False
    alone: bool = False
    follows: bool = False
    non_idempotent: bool = False
    aborted_by: str | None = None
    abandoned: bool = False
    stopped: bool = False
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, unit: scsi.LogicalUnit, tag: int, cdb: bytes, views: list[memoryview]) -> "Task":
        """Return the task that carries out `cdb` on `unit`."""
        buffer = Buffer(views)
        row = scsi.lookup(cdb)
        task = cls(tag, cdb, buffer, unit.execute(cdb, buffer, row))
        task.non_idempotent = not unit.idempotent(cdb, row)
        if row is not None:
            task.exclusive, task.alone = row.exclusive, row.starts_alone
        return task

    @property
    def name(self) -> str:
        """T10's name of the command."""
        return scsi.describe(self.cdb)[0]


def visiting(
    operation: MediumOp,
    notice: Callable[[MediumOp], None],
    done: Callable[[BlockResult, Exception | None], None],
) -> Generator[BlockOp, BlockResult, None]:
    """Do one block operation for a command that is not of this unit, or has been answered.

    Args:
        operation: What to do.
        notice: Told of it when it begins.
        done: Called once it has begun and then ended, whatever ends it, with its result or its error.
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
