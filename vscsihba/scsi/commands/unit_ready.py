"""TEST UNIT READY and REQUEST SENSE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.scsi.response import GOOD, Response, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def unit_ready(_lu: LogicalUnit, _cdb: Cdb, _buffer: Buffer) -> Response:
    """TEST UNIT READY: SPC-5; GOOD: the opcode table has already required a ready medium."""
    return GOOD


def request_sense(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """REQUEST SENSE: SPC-5; reports and clears a unit attention."""
    payload = lu.take_pending_sense().encode(descriptor=bool(cdb["desc"]))
    return data_in(buffer, payload, cdb["allocation_length"])
