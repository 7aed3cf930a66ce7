"""Block operations performed on a handler: the one place where the two vocabularies meet."""

from vscsihba.block import (
    BlockOp,
    BlockResult,
    CryptoErase,
    Extents,
    Flush,
    Read,
    Unmap,
    Write,
    WriteZeroes,
)
from vscsihba.handlers.base import Handler


def perform(medium: Handler, op: BlockOp) -> BlockResult:
    """Do one block operation, in the calling thread, and return its answer.

    Raises:
        OSError: The medium failed.
    """
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
    return None
