"""POPULATE TOKEN and WRITE USING TOKEN: copies by token.

One command makes a token of ranges of blocks; the other, perhaps on another unit, writes
the data that the token represents (SBC-4 "Block device ROD token operations").
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

from vscsihba.block import Write, WriteZeroes
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.ranges import check_range
from vscsihba.scsi.copy.manager import CopyOperation, Place, aborted
from vscsihba.scsi.copy.token_source import MADE_TYPES, TokenSource, find_source
from vscsihba.scsi.copy.tokens import BLOCK_DEVICE_ZERO, POINT_IN_TIME_ANY, TOKEN_LENGTH, Token, rod_type
from vscsihba.scsi.response import GOOD, Response, answered, quietly
from vscsihba.scsi.sense import CheckCondition, SenseKey, illegal_request, invalid_parameter

if TYPE_CHECKING:
    from vscsihba.block import Buffer, Extent
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background, Steps

MOST_RANGES = 64
MOST_BYTES = 1 << 30
"""Bytes of a token at most; copying them stays well within any initiator's time limit."""

DEFAULT_TIMEOUT, LONGEST_TIMEOUT = 60, 3600
"""INACTIVITY TIMEOUT, seconds."""

POPULATE_TOKEN, WRITE_USING_TOKEN = 0x10, 0x11
"""Service actions."""

_PIECE = 1 << 20
"""Bytes copied at once."""


def populate_token(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """POPULATE TOKEN: SBC-4; no data is copied, so it ends before the status, with IMMED too."""
    parameters = _parameters(cdb, buffer, header=16)
    if parameters is None:
        return GOOD
    timeout, kind = struct.unpack_from(">II", parameters, 4)
    if timeout > LONGEST_TIMEOUT:
        raise invalid_parameter(4)
    if not parameters[2] & 0x02:  # RTV: ROD TYPE is valid
        kind = POINT_IN_TIME_ANY
    if kind not in MADE_TYPES:
        raise invalid_parameter(8)
    ranges = _ranges(lu, parameters, 14)
    expires = lu.timestamp.clock() + (timeout or DEFAULT_TIMEOUT) * 1000
    token = Token(MADE_TYPES[kind], tuple(ranges), expires)
    operation = CopyOperation(POPULATE_TOKEN, running=False, wanted=token.size, copied=token.size)
    lu.copies.begin(cdb["list_identifier"], operation)
    operation.token = lu.tokens.add(lu.identity.naa, token)
    lu.refresh()
    return GOOD


def write_using_token(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response | Steps:
    """WRITE USING TOKEN: SBC-4; a token of zeroes needs no source."""
    parameters = _parameters(cdb, buffer, header=536)
    if parameters is None:
        return GOOD
    value = parameters[16 : 16 + TOKEN_LENGTH]
    if int.from_bytes(value[6:8], "big") != TOKEN_LENGTH - 8:
        raise illegal_request(Asc.INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH)
    offset = int.from_bytes(parameters[8:16], "big") * lu.block_size
    destinations = _ranges(lu, parameters, 534)
    operation = CopyOperation(WRITE_USING_TOKEN, wanted=sum(one.length for one in destinations))
    if rod_type(value) == BLOCK_DEVICE_ZERO:
        work = _write_zeroes(lu, destinations, operation)
    else:
        source = find_source(lu, value)
        if offset >= source.token.size:
            raise invalid_parameter(8)
        if source.place.unit is lu and any(source.token.touches(one) for one in destinations):
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_CAUSE_NOT_REPORTABLE)
        source.position = offset
        work = _write_token(lu, source, destinations, operation)
        if parameters[2] & 0x02:  # DEL_TKN
            work = _then_delete(work, source, value)
    lu.copies.begin(cdb["list_identifier"], operation)
    job = _job(work, operation)
    return Response(background=quietly(job)) if parameters[2] & 0x01 else answered(job)


def _parameters(cdb: Cdb, buffer: Buffer, header: int) -> bytes | None:
    """Return the parameter list: a header and at least one range; None if the CDB says that it is empty."""
    length = cdb["parameter_list_length"]
    if not length:
        return None
    if length < header or buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    parameters = buffer.gather(0, length)
    if int.from_bytes(parameters[:2], "big") < header + 16 - 2:
        raise invalid_parameter(0)
    return parameters


def _ranges(lu: LogicalUnit, parameters: bytes, at: int) -> list[Extent]:
    """Decode the block device range descriptors, whose length is at byte `at`.

    A truncated descriptor is ignored; ranges must not overlap.
    """
    listed = int.from_bytes(parameters[at : at + 2], "big")
    length = min(listed, len(parameters) - at - 2) // 16 * 16
    if not length:
        raise invalid_parameter(at)
    if length // 16 > MOST_RANGES:
        raise illegal_request(Asc.TOO_MANY_SEGMENT_DESCRIPTORS)
    ranges = [
        check_range(lu, lba, blocks)
        for lba, blocks in struct.iter_unpack(">QI4x", parameters[at + 2 : at + 2 + length])
    ]
    inhabited = sorted((one for one in ranges if one.length), key=lambda one: one.offset)
    overlap = any(one.end > other.offset for one, other in pairwise(inhabited))
    if overlap or sum(one.length for one in ranges) > MOST_BYTES:
        raise invalid_parameter(at + 2)
    return ranges


def _write_token(
    lu: LogicalUnit, source: TokenSource, destinations: list[Extent], operation: CopyOperation
) -> Background:
    """Write the bytes of a token; the last block is filled up with zeroes.

    Raises:
        CheckCondition: The data has changed meanwhile, or one of the units failed.
    """
    scratch = memoryview(bytearray(_PIECE))
    for destination in destinations:
        for offset in range(destination.offset, destination.end, _PIECE):
            filled = yield from source.fill(scratch[: min(_PIECE, destination.end - offset)])
            whole = -(-filled // lu.block_size) * lu.block_size
            if not whole:
                return
            scratch[filled:whole] = bytes(whole - filled)
            Place(lu, None, offset).check(whole, writing=True)  # the work may run after the status
            yield Write(offset, [scratch[:whole]], fua=lu.write_through)
            operation.copied += whole


def _then_delete(work: Background, source: TokenSource, value: bytes) -> Background:
    """Do `work`, then delete the token that it has read."""
    try:
        yield from work
    finally:
        source.place.unit.tokens.delete(value)
        source.place.unit.refresh()


def _write_zeroes(lu: LogicalUnit, ranges: list[Extent], operation: CopyOperation) -> Background:
    for extent in ranges:
        if extent.length:
            Place(lu, None, extent.offset).check(extent.length, writing=True)
            yield WriteZeroes(extent, may_unmap=lu.capabilities.unmap, fua=lu.write_through)
            operation.copied += extent.length


def _job(work: Background, operation: CopyOperation) -> Background:
    """Do the work and record its result.

    Raises:
        CheckCondition: COPY ABORTED: a unit failed; or the token was revoked.
    """
    try:
        yield from work
    except CheckCondition as condition:
        revoked = condition.sense.key is SenseKey.ILLEGAL_REQUEST
        failure = condition if revoked else aborted(Asc.THIRD_PARTY_DEVICE_FAILURE)
        operation.failure = failure.sense
        raise failure from condition
    finally:
        operation.running = False
