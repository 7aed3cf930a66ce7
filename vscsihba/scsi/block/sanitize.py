"""SANITIZE: make the data on the medium unrecoverable, or fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import CryptoErase
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.erasure import erase, overwrite, zero
from vscsihba.scsi.readiness import Erasure
from vscsihba.scsi.response import GOOD, Background, Response, Steps
from vscsihba.scsi.sense import invalid_parameter

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def sanitize_overwrite(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response | Steps:
    """SANITIZE, OVERWRITE: SBC-4; all passes are written; with INVERT, the last one is the given pattern."""
    passes = _parse_passes(lu, cdb, buffer)
    erasure = _erasure(lu, cdb, len(passes))

    def work() -> Background:
        for pattern in passes:
            yield from overwrite(lu, erasure, pattern)

    return erase(lu, erasure, work(), immed=bool(cdb["immed"]))


def _parse_passes(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> list[bytes]:
    """Decode the parameter list: the pattern of each pass (SBC-4 "OVERWRITE service action")."""
    length = cdb["parameter_list_length"]
    if not 4 < length <= lu.block_size + 4 or buffer.length < length:
        raise cdb.invalid("parameter_list_length")
    parameters = buffer.gather(0, length)
    test, count, invert = parameters[0] & 0x60, parameters[0] & 0x1F, parameters[0] & 0x80
    if test:
        raise invalid_parameter(0, 6)
    if not count:
        raise invalid_parameter(0, 4)
    pattern_length = int.from_bytes(parameters[2:4], "big")
    if pattern_length != length - 4:
        raise invalid_parameter(2)
    pattern = parameters[4:]
    inverted = bytes(byte ^ 0xFF for byte in pattern)
    return [inverted if invert and left % 2 else pattern for left in reversed(range(count))]


def sanitize_block_erase(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response | Steps:
    """SANITIZE, BLOCK ERASE: SBC-4; every block is deallocated, and reads as zeroes."""
    erasure = _erasure(lu, cdb)
    return erase(lu, erasure, zero(lu, erasure, may_unmap=True), immed=bool(cdb["immed"]))


def sanitize_cryptographic_erase(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response | Steps:
    """SANITIZE, CRYPTOGRAPHIC ERASE: SBC-4; the medium destroys its key."""

    def work() -> Background:
        yield CryptoErase()

    return erase(lu, _erasure(lu, cdb), work(), immed=bool(cdb["immed"]))


def sanitize_exit_failure_mode(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Steps:
    """SANITIZE, EXIT FAILURE MODE: SBC-4; only a sanitize with AUSE=1 can be abandoned."""
    erasure = lu.readiness.erasure
    if erasure is None:
        return GOOD
    if not erasure.may_exit:
        raise cdb.invalid("service_action")
    yield lu.keep(erasure=None)
    lu.readiness.erasure = None
    lu.refresh()
    return GOOD


def _erasure(lu: LogicalUnit, cdb: Cdb, passes: int = 1) -> Erasure:
    """Return the description of a sanitize.

    Raises:
        CheckCondition: It sets AUSE, but repeats a failed one that did not.
    """
    failed = lu.readiness.erasure
    if failed is not None and not failed.may_exit and cdb["ause"]:
        raise cdb.invalid("ause")
    return Erasure(
        running=Asc.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS,
        failure=Asc.SANITIZE_COMMAND_FAILED,
        total=lu.geometry.size * passes,
        may_exit=bool(cdb["ause"]),
    )
