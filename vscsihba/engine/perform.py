"""Block operations performed on a handler: the one place where the two vocabularies meet."""

import errno
import os
from collections.abc import Mapping

from vscsihba.block import (
    AskSpace,
    BlockOp,
    BlockResult,
    CryptoErase,
    Elsewhere,
    Execute,
    Extents,
    Flush,
    Read,
    Resize,
    Unmap,
    Write,
    WriteZeroes,
)
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cdb_handler import execute


def perform(medium: Handler, others: Mapping[int, Handler], op: BlockOp) -> BlockResult:
    """Do one block operation, in the calling thread, and return its answer.

    Args:
        medium: Of the logical unit that asks.
        others: The media of its HBA, by LUN.
        op: What to do.

    Raises:
        OSError: The medium failed; ENOTCONN if it is no longer there, ENOMEM if the machine has no memory
            for the operation.
        UsageError: No disk can have the size of a `Resize`.
        RuntimeError: The handler has called ``sys.exit``, which must not end a thread of the engine.
    """
    try:
        return _perform(medium, others, op)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except SystemExit as error:
        raise RuntimeError("a handler has called sys.exit") from error


def _perform(  # noqa: C901 - one case an operation
    medium: Handler, others: Mapping[int, Handler], op: BlockOp
) -> BlockResult:
    match op:
        case Read(offset, views):
            medium.read(offset, views)
        case Write(offset, views, fua):
            medium.write(offset, views, fua=fua)
        case Flush():
            medium.flush()
        case Unmap(extent):
            medium.unmap(extent.offset, extent.length)
        case WriteZeroes(extent, may_unmap, fua):
            medium.write_zeroes(extent.offset, extent.length, may_unmap=may_unmap, fua=fua)
        case Extents(extent):
            return medium.extents(extent.offset, extent.length)
        case CryptoErase():
            medium.crypto_erase()
        case Resize(size):
            medium.resize(size)
        case AskSpace():
            return medium.space()
        case Execute(cdb, views):
            return execute(medium, cdb, views)
        case Elsewhere(lun, operation):
            other = others.get(lun)
            if other is None:
                raise OSError(errno.ENOTCONN, f"LUN {lun} is no longer served here")
            return perform(other, others, operation)
    return None
