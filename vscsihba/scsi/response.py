"""Responses: status, sense data, length of data-in, and work that goes on after the status.

Does not know any command.
"""

from collections.abc import Callable, Generator
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from vscsihba.block import BlockOp, BlockResult, Buffer
from vscsihba.scsi.sense import CheckCondition, Sense

Background = Generator[BlockOp, BlockResult, None]
"""Work that goes on after the status has been sent (IMMED=1)."""


class Status(IntEnum):
    """Status codes, SAM-5 "Status codes"."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40

    @property
    def words(self) -> str:
        """T10's words, such as ``CHECK CONDITION``."""
        return self.name.replace("_", " ")


class Response(NamedTuple):
    """The response to one command.

    Attributes:
        status: SAM status.
        sense: Sense data, empty unless the status is CHECK CONDITION.
        data_in: Valid bytes at the head of the data buffer; None for a command without data-in.
        background: Work that is left; the driver runs it to its end.
    """

    status: Status = Status.GOOD
    sense: bytes = b""
    data_in: int | None = None
    background: Background | None = None


GOOD = Response()

Steps = Generator[BlockOp, BlockResult, Response]
"""A command under way: yields block operations, returns its response."""


def data_in(buffer: Buffer, payload: bytes, allocation_length: int) -> Response:
    """Return GOOD with `payload`, cut to the allocation length and to the buffer (both in bytes).

    SPC-5 "Allocation length": truncation is not an error.
    """
    return moved(buffer.scatter(payload[:allocation_length]))


@lru_cache
def moved(length: int) -> Response:
    """Return GOOD with `length` bytes of data-in; most are of few lengths."""
    return Response(data_in=length)


def answered(work: Background) -> Steps:
    """Do `work`, then return GOOD."""
    yield from work
    return GOOD


def quietly(work: Background) -> Background:
    """Do `work` after the status; ignore a failure, which another command reports on request."""
    try:
        yield from work
    except CheckCondition:
        return


def deferring(defer: Callable[[Sense], None], work: Background) -> Background:
    """Do `work` after the status; report a failure as a deferred error (SPC-5 "Deferred errors")."""
    try:
        yield from work
    except CheckCondition as condition:
        defer(condition.sense)
