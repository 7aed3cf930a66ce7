"""Self-tests: they read the medium and record the result.

A short test reads three blocks, an extended one the whole medium. SEND DIAGNOSTIC starts them,
a log page reports the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from vscsihba.block import Extent
from vscsihba.scsi.block.verify import read_pieces
from vscsihba.scsi.sense import CheckCondition, Sense

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background

_PIECE = 16 << 20
"""Bytes read between two checks whether the test was aborted."""


class SelfTestCode(IntEnum):
    """SELF-TEST CODE, SPC-5 "SEND DIAGNOSTIC command"."""

    DEFAULT = 0
    BACKGROUND_SHORT = 1
    BACKGROUND_EXTENDED = 2
    ABORT_BACKGROUND = 4
    FOREGROUND_SHORT = 5
    FOREGROUND_EXTENDED = 6


class SelfTestResult(IntEnum):
    """SELF-TEST RESULTS, SPC-5 "Self-Test Results log page"."""

    PASSED = 0x0
    ABORTED = 0x1
    ABORTED_BY_RESET = 0x2
    FAILED = 0x7
    RUNNING = 0xF


@dataclass(slots=True)
class SelfTest:
    """One self-test.

    Attributes:
        code: The kind of test.
        hours: Power-on hours of the unit at its start.
        outcome: Its result.
        sense: The reason of a failure.
    """

    code: SelfTestCode
    hours: int
    outcome: SelfTestResult = SelfTestResult.RUNNING
    sense: Sense | None = None

    def encode(self) -> bytes:
        """Return the 16 bytes of a self-test results log parameter."""
        data = bytearray(16)
        data[0] = self.code << 5 | self.outcome
        data[2:4] = min(self.hours, 0xFFFF).to_bytes(2, "big")
        data[4:12] = b"\xff" * 8
        if self.sense is not None:
            if self.sense.information is not None:
                data[4:12] = self.sense.information.to_bytes(8, "big")
            data[12] = self.sense.key
            data[13:15] = self.sense.asc.to_bytes(2, "big")
        return bytes(data)


def run(lu: LogicalUnit, test: SelfTest, *, extended: bool) -> Background:
    """Run `test` and record its result.

    Raises:
        CheckCondition: The medium could not be read.
    """
    try:
        for extent in _everything(lu) if extended else _three_places(lu):
            if test.outcome is not SelfTestResult.RUNNING:
                break
            yield from read_pieces(extent, lambda _at, _piece: None)
    except CheckCondition as condition:
        test.outcome, test.sense = SelfTestResult.FAILED, condition.sense
        raise
    if test.outcome is SelfTestResult.RUNNING:
        test.outcome = SelfTestResult.PASSED


def abort(tests: Iterable[SelfTest], outcome: SelfTestResult) -> bool:
    """Abort the running test, which ends with its next piece; return whether there was one."""
    running = [test for test in tests if test.outcome is SelfTestResult.RUNNING]
    for test in running:
        test.outcome = outcome
    return bool(running)


def _three_places(lu: LogicalUnit) -> list[Extent]:
    blocks = (0, lu.blocks // 2, lu.blocks - 1)
    return [Extent(block * lu.block_size, lu.block_size) for block in blocks]


def _everything(lu: LogicalUnit) -> Iterator[Extent]:
    size = lu.geometry.size
    return (Extent(offset, min(_PIECE, size - offset)) for offset in range(0, size, _PIECE))
