"""Block operations performed on a handler: the only place that maps operations to verbs."""

import errno
import os
from collections.abc import Callable

from vscsihba.block import (
    AskSpace,
    BlockOp,
    BlockResult,
    CryptoErase,
    Execute,
    Extents,
    Flush,
    Keep,
    OnUnit,
    Read,
    Resize,
    Unmap,
    Write,
    WriteZeroes,
)
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cdb_handler import execute


def _keep_nothing(_state: bytes) -> None:
    """Store nothing: the unit has no saved state."""


def perform(  # noqa: C901, PLR0912 - one case an operation
    handler: Handler, op: BlockOp, keep: Callable[[bytes], None] = _keep_nothing
) -> BlockResult:
    """Do one block operation on the calling thread, and return its result.

    Args:
        handler: Handler stack of the logical unit.
        op: The operation. `OnUnit` is refused: it belongs to the other unit's task set.
        keep: Stores the state of a `Keep` operation.

    Raises:
        OSError: The handler failed; ENOMEM if the machine has no memory for the operation.
        UsageError: The size of a `Resize` is not valid.
        RuntimeError: The handler has called ``sys.exit``, which must not end a thread of the engine.
    """
    try:
        match op:
            case Read(offset, views):
                handler.read(offset, views)
            case Write(offset, views, fua):
                handler.write(offset, views, fua=fua)
            case Flush():
                handler.flush()
            case Unmap(extent):
                handler.unmap(extent.offset, extent.length)
            case WriteZeroes(extent, may_unmap, fua):
                handler.write_zeroes(extent.offset, extent.length, may_unmap=may_unmap, fua=fua)
            case Extents(extent):
                return handler.extents(extent.offset, extent.length)
            case CryptoErase():
                handler.crypto_erase()
            case Resize(size):
                handler.resize(size)
            case AskSpace():
                return handler.space()
            case Execute(cdb, views):
                return execute(handler, cdb, views)
            case Keep(state):
                keep(state)
            case OnUnit(lun, _):
                raise OSError(errno.ENOTCONN, f"LUN {lun} is not served here")
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except SystemExit as error:
        raise RuntimeError("a handler has called sys.exit") from error
    return None
