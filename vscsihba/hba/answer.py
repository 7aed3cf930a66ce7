"""A command answered by a logical unit of `vscsihba.scsi`, on the calling thread.

Knows how to drive block operations, not where the command comes from.
"""

import errno
from collections.abc import Generator
from typing import Protocol, TypeVar

from vscsihba import scsi
from vscsihba.block import BlockOp, BlockResult, Buffer, Flush, Keep
from vscsihba.engine.serving.perform import perform
from vscsihba.handlers.base import Handler

T = TypeVar("T")


class Answerable(Protocol):
    """A command that takes one answer."""

    cdb: bytes
    buffer: Buffer

    def complete(self, status: int = 0, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer it."""


def answer(task: Answerable, unit: scsi.LogicalUnit, medium: Handler | None) -> None:
    """Have `unit` answer `task`, with `medium` as its storage.

    Background work of the unit (IMMED=1) is done when this returns.

    Raises:
        TransportError: The task is not open.
    """
    response = _run(unit.execute(task.cdb, task.buffer), medium)
    task.complete(response.status, response.sense, response.data_in)
    if response.background is not None:
        _run(response.background, medium)


def _run(steps: Generator[BlockOp, BlockResult, T], medium: Handler | None) -> T:
    """Do the block operations of `steps`, and return its return value."""
    try:
        operation = next(steps)
        while True:
            try:
                result = _perform(operation, medium)
            except OSError as fault:
                operation = steps.throw(fault)
            else:
                operation = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _perform(operation: BlockOp, medium: Handler | None) -> BlockResult:
    if medium is not None:
        return perform(medium, operation)
    if isinstance(operation, Flush | Keep):
        return None
    raise OSError(errno.EIO, "the LUN has no storage")
