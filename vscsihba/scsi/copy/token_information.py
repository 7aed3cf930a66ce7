"""RECEIVE ROD TOKEN INFORMATION: the result of a token command, and the token that it made."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.copy.token_copy import POPULATE_TOKEN, WRITE_USING_TOKEN
from vscsihba.scsi.response import Response, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.copy.manager import CopyOperation
    from vscsihba.scsi.logical_unit import LogicalUnit

_WITHOUT_ERRORS, _WITH_ERRORS, _NOT_ALL, _IN_PROGRESS = 0x01, 0x02, 0x03, 0x12
"""COPY OPERATION STATUS."""

_IN_BLOCKS = 0xF1
"""TRANSFER COUNT UNITS: logical blocks."""

_NOT_KNOWN = 0xFFFFFFFF
"""ESTIMATED STATUS UPDATE DELAY."""


def receive_rod_token_information(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """RECEIVE ROD TOKEN INFORMATION: SBC-4."""
    operation = lu.copies.get(cdb["list_identifier"])
    if operation is None or operation.action not in (POPULATE_TOKEN, WRITE_USING_TOKEN):
        raise cdb.invalid("list_identifier")
    sense = operation.failure.encode(descriptor=True) if operation.failure else b""
    token = bytes(2) + operation.token if operation.token else b""
    body = struct.pack(
        ">BB2xIxBBBQ8x",
        operation.action,
        _status(operation),
        _NOT_KNOWN,
        len(sense),  # LENGTH OF THE SENSE DATA FIELD
        len(sense),
        _IN_BLOCKS,
        operation.copied // lu.block_size,
    )
    body += sense + len(token).to_bytes(4, "big") + token
    return data_in(buffer, len(body).to_bytes(4, "big") + body, cdb["allocation_length"])


def _status(operation: CopyOperation) -> int:
    """Return COPY OPERATION STATUS."""
    if operation.running:
        return _IN_PROGRESS
    if operation.failure is not None:
        return _WITH_ERRORS
    return _WITHOUT_ERRORS if operation.copied == operation.wanted else _NOT_ALL
