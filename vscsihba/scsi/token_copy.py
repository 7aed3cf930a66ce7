"""POPULATE TOKEN, WRITE USING TOKEN and RECEIVE ROD TOKEN INFORMATION: copies by token.

One command turns ranges of blocks into a token, another, perhaps on another unit, writes
what the token stands for (SBC-4 "Token-based copy").
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from vscsihba.block import WriteZeroes
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block_range import check_range
from vscsihba.scsi.copy_manager import CopyOperation, Place, copy, find_unit
from vscsihba.scsi.response import GOOD, Response, data_in
from vscsihba.scsi.sense import CheckCondition, illegal_request, invalid_parameter
from vscsihba.scsi.tokens import (
    ACCESS_UPON_REFERENCE,
    BLOCK_DEVICE_ZERO,
    TOKEN_LENGTH,
    Token,
    creator,
    rod_type,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vscsihba.block import Buffer, Extent
    from vscsihba.scsi.command import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background, Steps

MOST_RANGES = 64
MOST_BYTES = 1 << 30
"""Bytes of a token; one copy of so much is done well within any initiator's time limit."""

DEFAULT_TIMEOUT, LONGEST_TIMEOUT = 60, 3600
"""INACTIVITY TIMEOUT, seconds."""

_POPULATE, _WRITE = 0x10, 0x11
_WITHOUT_ERRORS, _WITH_ERRORS, _IN_PROGRESS = 0x01, 0x02, 0x12
"""COPY OPERATION STATUS."""

_IN_BLOCKS = 0xF1
"""TRANSFER COUNT UNITS: logical blocks."""


def populate_token(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """POPULATE TOKEN: SBC-4; nothing is copied, so it is done at once, IMMED or not."""
    parameters = _parameters(cdb, buffer, 16)
    if parameters is None:
        return GOOD
    timeout, wanted = struct.unpack_from(">II", parameters, 4)
    if timeout > LONGEST_TIMEOUT:
        raise invalid_parameter(4)
    if wanted not in (0, ACCESS_UPON_REFERENCE) and parameters[2] & 0x02:  # RTV: ROD TYPE is valid
        raise invalid_parameter(8)
    ranges = _ranges(lu, parameters, 14)
    expires = lu.timestamp.clock() + (timeout or DEFAULT_TIMEOUT) * 1000
    operation = CopyOperation(_POPULATE, running=False, segments=len(ranges))
    operation.copied = sum(one.length for one in ranges)
    lu.copies.begin(cdb["list_identifier"], operation)
    operation.token = lu.tokens.add(lu.identity.naa, Token(tuple(ranges), expires))
    return GOOD


def write_using_token(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response | Steps:
    """WRITE USING TOKEN: SBC-4; a token of zeroes needs no source."""
    parameters = _parameters(cdb, buffer, 536)
    if parameters is None:
        return GOOD
    value = parameters[16 : 16 + TOKEN_LENGTH]
    offset = int.from_bytes(parameters[8:16], "big") * lu.block_size
    destinations = _ranges(lu, parameters, 534)
    operation = CopyOperation(_WRITE)
    if rod_type(value) == BLOCK_DEVICE_ZERO:
        work = _write_zeroes(lu, destinations, operation)
    else:
        source, token = _find_token(lu, value)
        pairs = _pairs(token.ranges, offset, destinations)
        work = _write_pairs(lu, source, pairs, operation)
        if parameters[2] & 0x02:  # DEL_TKN
            source.unit.tokens.delete(value)
    lu.copies.begin(cdb["list_identifier"], operation)
    job = _job(work, operation)
    return Response(background=_quietly(job)) if parameters[2] & 0x01 else _answered(job)


def _parameters(cdb: Cdb, buffer: Buffer, size: int) -> bytes | None:
    """Return the parameter list, at least `size` bytes long; None if the CDB says that there is none."""
    length = cdb["parameter_list_length"]
    if not length:
        return None
    if length < size or buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return buffer.gather(0, length)


def _ranges(lu: LogicalUnit, parameters: bytes, at: int) -> list[Extent]:
    """Decode the block device range descriptors, whose length stands at byte `at`."""
    length = int.from_bytes(parameters[at : at + 2], "big")
    start = at + 2
    if length % 16 or start + length > len(parameters):
        raise invalid_parameter(at)
    if length // 16 > MOST_RANGES:
        raise illegal_request(Asc.TOO_MANY_SEGMENT_DESCRIPTORS)
    ranges = [
        check_range(lu, lba, blocks)
        for lba, blocks in struct.iter_unpack(">QI4x", parameters[start : start + length])
    ]
    if not ranges or sum(one.length for one in ranges) > MOST_BYTES:
        raise invalid_parameter(at)
    return ranges


def _find_token(lu: LogicalUnit, value: bytes) -> tuple[Place, Token]:
    """Return the unit that a token belongs to, and what the token stands for.

    Raises:
        CheckCondition: INVALID TOKEN OPERATION.
    """
    if rod_type(value) != ACCESS_UPON_REFERENCE:
        raise illegal_request(Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
    try:
        unit, lun = find_unit(lu, creator(value))
    except CheckCondition as condition:
        raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN) from condition
    return Place(unit, lun, 0), unit.tokens.find(value, unit.timestamp.clock())


def _pairs(
    sources: Iterable[Extent], skip: int, destinations: Iterable[Extent]
) -> list[tuple[int, int, int]]:
    """Lay destinations beside sources: byte offsets of both, and the length, of each piece.

    Args:
        sources: What is copied.
        skip: Bytes of it to leave out at the head.
        destinations: Where it goes.

    Raises:
        CheckCondition: There is not so much to copy.
    """
    pairs = []
    left = [(one.offset, one.length) for one in sources]
    for destination in destinations:
        at = destination.offset
        while at < destination.end:
            if not left:
                raise invalid_parameter(8)
            offset, length = left.pop(0)
            if skip >= length:
                skip -= length
                continue
            piece = min(length - skip, destination.end - at)
            pairs.append((offset + skip, at, piece))
            at += piece
            if skip + piece < length:
                left.insert(0, (offset + skip + piece, length - skip - piece))
            skip = 0
    return pairs


def _write_pairs(
    lu: LogicalUnit, source: Place, pairs: list[tuple[int, int, int]], operation: CopyOperation
) -> Background:
    for offset, at, length in pairs:
        yield from copy(replace(source, offset=offset), Place(lu, None, at), length, operation)
        operation.segments += 1


def _write_zeroes(lu: LogicalUnit, ranges: list[Extent], operation: CopyOperation) -> Background:
    for extent in ranges:
        if extent.length:
            yield WriteZeroes(extent, may_unmap=lu.capabilities.unmap, fua=lu.write_through)
        operation.copied += extent.length
        operation.segments += 1


def _job(work: Background, operation: CopyOperation) -> Background:
    """Do the work and note how it ends."""
    try:
        yield from work
    except CheckCondition as condition:
        operation.failure = condition.sense
        raise
    finally:
        operation.running = False


def _answered(job: Background) -> Steps:
    yield from job
    return GOOD


def _quietly(job: Background) -> Background:
    """Leave a failure after the status to whoever asks for the token information."""
    try:
        yield from job
    except CheckCondition:
        return


def receive_rod_token_information(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """RECEIVE ROD TOKEN INFORMATION: SBC-4."""
    operation = lu.copies.get(cdb["list_identifier"])
    if operation is None or operation.action not in (_POPULATE, _WRITE):
        raise cdb.invalid("list_identifier")
    status = _IN_PROGRESS if operation.running else _WITH_ERRORS if operation.failure else _WITHOUT_ERRORS
    sense = operation.failure.encode(descriptor=True) if operation.failure else b""
    token = bytes(2) + operation.token if operation.token else b""
    body = struct.pack(
        ">BBHIBBBBQH6x",
        operation.action,
        status,
        0,  # OPERATION COUNTER
        0xFFFFFFFF,  # ESTIMATED STATUS UPDATE DELAY: not known
        0,
        len(sense),  # LENGTH OF THE SENSE DATA FIELD
        len(sense),
        _IN_BLOCKS,
        operation.copied // lu.block_size,
        operation.segments,
    )
    body += sense + len(token).to_bytes(4, "big") + token
    return data_in(buffer, len(body).to_bytes(4, "big") + body, cdb["allocation_length"])
