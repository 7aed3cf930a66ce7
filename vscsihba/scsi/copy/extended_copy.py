"""EXTENDED COPY(LID1): copies described by targets and segments.

Supports one descriptor of each kind of SPC-4: the identification descriptor, which
names a unit by its NAA, and the copy from block device to block device.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.copy.manager import CopyOperation, Place, aborted, copy, find_unit
from vscsihba.scsi.response import GOOD, Response, Steps
from vscsihba.scsi.sense import CheckCondition, illegal_request, invalid_parameter

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background

IDENTIFICATION, BLOCK_TO_BLOCK = 0xE4, 0x02
"""DESCRIPTOR TYPE CODE of the target (CSCD) and of the segment descriptor."""

MOST_TARGETS, MOST_SEGMENTS = 16, 256
_HEADER, _TARGET, _SEGMENT = 16, 32, 28
"""Bytes of the parameter list header and of the descriptors."""

MOST_DESCRIPTOR_BYTES = MOST_TARGETS * _TARGET + MOST_SEGMENTS * _SEGMENT
MOST_SEGMENT_BYTES = 0xFFFF * 4096
MOST_CONCURRENT = 64
"""Concurrent copies; more would only wait."""

GRANULARITY = 9
"""DATA SEGMENT GRANULARITY: segments are counted in 2^9 bytes."""

EXTENDED_COPY = 0x00
"""Service action."""

_NO_IDENTIFIER = 0b11
"""LIST ID USAGE: the result of this copy is not kept."""


@dataclass(frozen=True, slots=True)
class _Target:
    """An identification descriptor: designator and block length in bytes."""

    naa: bytes
    block_size: int


@dataclass(frozen=True, slots=True)
class _Segment:
    """A block device to block device descriptor; indices into the targets, LBAs, number of blocks."""

    source: int
    destination: int
    counts_destination: bool
    blocks: int
    source_lba: int
    destination_lba: int


def extended_copy(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response | Steps:
    """EXTENDED COPY(LID1): SPC-4; all descriptors are checked before the first block is copied."""
    length = cdb["parameter_list_length"]
    if not length:
        return GOOD
    if length < _HEADER or buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    parameters = buffer.gather(0, length)
    targets, segments = _parse(parameters)
    operation = CopyOperation(EXTENDED_COPY)
    identifier, usage = parameters[0], parameters[1] >> 3 & 0b11
    if usage != _NO_IDENTIFIER:
        lu.copies.begin(identifier, operation)
    elif identifier:
        raise invalid_parameter(0)
    return _run(lu, targets, segments, operation)


def _run(
    lu: LogicalUnit, targets: list[_Target], segments: list[_Segment], operation: CopyOperation
) -> Steps:
    try:
        for segment in segments:
            yield from _copy_segment(lu, targets, segment, operation)
            operation.segments += 1
    except CheckCondition as condition:
        operation.failure = condition.sense
        raise
    finally:
        operation.running = False
    return GOOD


def _copy_segment(
    lu: LogicalUnit, targets: list[_Target], segment: _Segment, operation: CopyOperation
) -> Background:
    """Copy one segment; blocks are those of the source, or with DC those of the destination."""
    if max(segment.source, segment.destination) >= len(targets):
        raise aborted(Asc.UNREACHABLE_COPY_TARGET)
    source_target, destination_target = targets[segment.source], targets[segment.destination]
    source_unit, source_lun = find_unit(lu, source_target.naa)
    destination_unit, destination_lun = find_unit(lu, destination_target.naa)
    for unit, target in ((source_unit, source_target), (destination_unit, destination_target)):
        if target.block_size != unit.block_size:
            raise aborted(Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE)
    counted = destination_unit if segment.counts_destination else source_unit
    length = segment.blocks * counted.block_size
    if length % source_unit.block_size or length % destination_unit.block_size:
        raise aborted(Asc.UNEXPECTED_INEXACT_SEGMENT)
    yield from copy(
        Place(source_unit, source_lun, segment.source_lba * source_unit.block_size),
        Place(destination_unit, destination_lun, segment.destination_lba * destination_unit.block_size),
        length,
        operation,
    )


def _parse(parameters: bytes) -> tuple[list[_Target], list[_Segment]]:
    """Decode the parameter list (SPC-4 "EXTENDED COPY(LID1) parameter list").

    Raises:
        CheckCondition: It is too long or too short, or a descriptor has an unknown type.
    """
    targets_length = int.from_bytes(parameters[2:4], "big")
    segments_length, inline_length = struct.unpack_from(">II", parameters, 8)
    if inline_length:
        raise invalid_parameter(12)
    end = _HEADER + targets_length + segments_length
    if targets_length + segments_length > MOST_DESCRIPTOR_BYTES or end > len(parameters):
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    middle = _HEADER + targets_length
    if targets_length // _TARGET > MOST_TARGETS:
        raise illegal_request(Asc.TOO_MANY_TARGET_DESCRIPTORS)
    if segments_length // _SEGMENT > MOST_SEGMENTS:
        raise illegal_request(Asc.TOO_MANY_SEGMENT_DESCRIPTORS)
    targets = [_parse_target(parameters[:middle], at) for at in range(_HEADER, middle, _TARGET)]
    segments = [_parse_segment(parameters[:end], at) for at in range(middle, end, _SEGMENT)]
    return targets, segments


def _parse_target(parameters: bytes, at: int) -> _Target:
    """Decode a target descriptor; LU ID TYPE and NUL are obsolete."""
    descriptor = parameters[at : at + _TARGET]
    if descriptor[0] != IDENTIFICATION:
        raise illegal_request(Asc.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)
    if len(descriptor) < _TARGET:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if descriptor[1] & 0x1F:  # PERIPHERAL DEVICE TYPE
        raise invalid_parameter(at + 1, 4)
    length = descriptor[7]
    is_naa = descriptor[5] & 0x3F == 0x03  # of the logical unit, NAA
    naa = descriptor[8 : 8 + length] if is_naa and length <= 20 else b""
    return _Target(naa, int.from_bytes(descriptor[29:32], "big"))


def _parse_segment(parameters: bytes, at: int) -> _Segment:
    """Decode a segment descriptor."""
    descriptor = parameters[at : at + _SEGMENT]
    if descriptor[0] != BLOCK_TO_BLOCK:
        raise illegal_request(Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)
    if len(descriptor) < _SEGMENT:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    flags, length, source, destination, blocks, source_lba, destination_lba = struct.unpack(
        ">xBHHHxxHQQ", descriptor
    )
    if length != _SEGMENT - 4:
        raise invalid_parameter(at + 2)
    return _Segment(source, destination, bool(flags & 0x02), blocks, source_lba, destination_lba)
