"""RECEIVE COPY RESULTS: results of EXTENDED COPY, and its limits."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.copy.extended_copy import (
    BLOCK_TO_BLOCK,
    EXTENDED_COPY,
    GRANULARITY,
    IDENTIFICATION,
    MOST_CONCURRENT,
    MOST_DESCRIPTOR_BYTES,
    MOST_SEGMENT_BYTES,
    MOST_SEGMENTS,
    MOST_TARGETS,
)
from vscsihba.scsi.response import Response, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def receive_copy_status(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """RECEIVE COPY RESULTS, COPY STATUS: SPC-4."""
    operation = lu.copies.get(cdb["list_identifier"])
    if operation is None or operation.action != EXTENDED_COPY:
        raise cdb.invalid("list_identifier")
    status = 0 if operation.running else 2 if operation.failure else 1
    payload = struct.pack(">IBHBI", 8, status, operation.segments, 0, min(operation.copied, 0xFFFFFFFF))
    return data_in(buffer, payload, cdb["allocation_length"])


def receive_copy_operating_parameters(_lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """RECEIVE COPY RESULTS, OPERATING PARAMETERS: SPC-4."""
    codes = bytes([BLOCK_TO_BLOCK, IDENTIFICATION])
    body = struct.pack(
        ">B3xHHII14xHBB5xB",
        1,  # SNLID: segments need not be identified
        MOST_TARGETS,
        MOST_SEGMENTS,
        MOST_DESCRIPTOR_BYTES,
        MOST_SEGMENT_BYTES,
        MOST_CONCURRENT,  # TOTAL CONCURRENT COPIES
        MOST_CONCURRENT,
        GRANULARITY,
        len(codes),
    )
    payload = struct.pack(">I", len(body) + len(codes)) + body + codes
    return data_in(buffer, payload, cdb["allocation_length"])
