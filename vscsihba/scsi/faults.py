"""Sense data for the errno of a handler.

Handlers fail with the errno of a system call; initiators read sense data. Where T10 leaves a choice, the
reaction of Linux to the sense data decides.
"""

import errno
from collections.abc import Callable, Generator
from typing import TypeVar

from vscsihba.block import CHANGES, BlockOp, BlockResult, Extents, Flush, Keep, OnUnit, Read
from vscsihba.errors import FlushError, MediumError, NotBegunError
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.failed_flush import LOST, FailedFlush
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey

Result = TypeVar("Result")

_UNKNOWN = (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
_AWAY = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY)

SENSE_OF_ERRNO: dict[int, tuple[SenseKey, Asc]] = {
    # No space: Linux reports ENOSPC to the file system and does not retry.
    errno.ENOSPC: (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
    errno.EDQUOT: (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
    # Not allowed to change the medium.
    errno.EROFS: (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED),
    errno.EPERM: (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED),
    errno.EACCES: (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED),
    # The handler cannot do this: Linux stops asking.
    errno.EOPNOTSUPP: (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE),
    # Temporary: Linux retries an aborted command.
    errno.ENOMEM: (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES),
    errno.EAGAIN: (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES),
    errno.EMFILE: (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES),
    errno.ENFILE: (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES),
    # The remote side does not respond: Linux waits and tries again, for minutes if necessary.
    errno.ETIMEDOUT: _AWAY,
    errno.ENOTCONN: _AWAY,
    errno.ECONNREFUSED: _AWAY,
    errno.ECONNRESET: _AWAY,
    errno.ECONNABORTED: _AWAY,
    errno.EPIPE: _AWAY,
    errno.EHOSTUNREACH: _AWAY,
    errno.ENETUNREACH: _AWAY,
}


def sense_of(fault: OSError, operation: BlockOp, block_size: int) -> Sense:
    """Return the sense data for the failure of a block operation.

    Args:
        fault: The exception of the handler.
        operation: The block operation.
        block_size: Logical block length in bytes, for the INFORMATION field.
    """
    if isinstance(operation, Flush) and not isinstance(fault, NotBegunError):
        return _of_flush(fault)
    if isinstance(operation, Keep) and not isinstance(fault, NotBegunError):
        return Sense(*_UNKNOWN)  # not a failure of the medium
    if fault.errno == errno.EIO:
        lba = fault.offset // block_size if isinstance(fault, MediumError) else None
        asked = operation.operation if isinstance(operation, OnUnit) else operation
        reading = isinstance(asked, Read | Extents)
        return Sense(
            SenseKey.MEDIUM_ERROR,
            Asc.UNRECOVERED_READ_ERROR if reading else Asc.WRITE_ERROR,
            information=lba,
        )
    return Sense(*SENSE_OF_ERRNO.get(fault.errno or 0, _UNKNOWN))


def _of_flush(fault: OSError) -> Sense:
    """Return sense data for a failed flush after which Linux does not repeat it.

    A medium reports a failed flush once, so the second one would end with GOOD. A failed write may be
    repeated: it carries its data.
    """
    key, asc = SENSE_OF_ERRNO.get(fault.errno or 0, (LOST.key, LOST.asc))
    return Sense(key, asc) if key is SenseKey.DATA_PROTECT else LOST


def _may_have_lost_data(operation: BlockOp, fault: OSError) -> bool:
    """Return whether data of earlier commands to this unit is in doubt, not only that of the operation.

    Another unit records its own failures.
    """
    if isinstance(operation, Flush):
        return not isinstance(fault, NotBegunError)
    return isinstance(fault, FlushError) and not isinstance(operation, OnUnit)


def translate(
    steps: Generator[BlockOp, BlockResult, Result],
    block_size: int,
    notice: Callable[[BlockOp], None],
    flushes: FailedFlush,
    *,
    reports: bool,
    relies: bool,
) -> Generator[BlockOp, BlockResult, Result]:
    """Run the steps of a command; an OSError that the driver throws in reaches them as CheckCondition.

    So a command sees failures as sense data, and may still recover from one.

    Args:
        steps: The command.
        block_size: Logical block length in bytes.
        notice: Called with each block operation that may change a medium, before it is done.
        flushes: Records failed flushes that the sender does not learn of.
        reports: The sender learns from a failed flush of this command that acknowledged data is lost.
        relies: A flush of this command must not succeed while an earlier failure is unreported.
    """
    try:
        operation = next(steps)
        while True:
            if isinstance(operation, CHANGES):
                notice(operation)
            try:
                answer = yield operation
            except OSError as fault:
                if not reports and _may_have_lost_data(operation, fault):
                    flushes.note(f"a flush failed: {fault}")
                operation = steps.throw(CheckCondition(sense_of(fault, operation, block_size)))
            else:
                lost = flushes.report() if relies and isinstance(operation, Flush) else None
                operation = steps.throw(CheckCondition(lost)) if lost else steps.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result
