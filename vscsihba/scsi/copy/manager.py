"""The copy manager: copies blocks within a logical unit, or between units of one HBA.

EXTENDED COPY and the token commands parse their parameters and call it. Records the result of each
copy for the commands that report it. Knows other units only through `LogicalUnit.hba_units`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.block import Extent, OnUnit, Read, Write
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vscsihba.block import MediumOp
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background

_PIECE = 1 << 20
"""Bytes copied at once."""

_MOST_REMEMBERED = 64


@dataclass(slots=True)
class CopyOperation:
    """A copy, running or finished.

    Attributes:
        action: Service action of its command.
        running: It is not finished.
        failure: The failure that ended it, None if none did.
        wanted: Bytes to copy.
        copied: Bytes written.
        segments: Segments or ranges finished.
        token: ROD token that it made.
    """

    action: int
    running: bool = True
    failure: Sense | None = None
    wanted: int = 0
    copied: int = 0
    segments: int = 0
    token: bytes = b""


class CopyOperations:
    """Copies of a logical unit by LIST IDENTIFIER; the oldest are dropped."""

    def __init__(self) -> None:
        self._operations: OrderedDict[int, CopyOperation] = OrderedDict()

    def begin(self, identifier: int, operation: CopyOperation) -> None:
        """Add an operation in place of an older one with its identifier.

        Raises:
            CheckCondition: OPERATION IN PROGRESS: the older one is still running.
        """
        older = self._operations.pop(identifier, None)
        if older is not None and older.running:
            self._operations[identifier] = older
            raise CheckCondition(Sense(SenseKey.ILLEGAL_REQUEST, Asc.OPERATION_IN_PROGRESS))
        self._operations[identifier] = operation
        while len(self._operations) > _MOST_REMEMBERED:
            self._operations.popitem(last=False)

    def get(self, identifier: int) -> CopyOperation | None:
        """Return the operation with an identifier, None if there is none."""
        return self._operations.get(identifier)

    def forget(self) -> None:
        """Drop all finished operations."""
        if self._operations:
            running = [(one, operation) for one, operation in self._operations.items() if operation.running]
            self._operations = OrderedDict(running)


def find_unit(lu: LogicalUnit, naa: bytes) -> tuple[LogicalUnit, int | None]:
    """Return the unit with an NAA designator, and its LUN if it is a different one.

    Raises:
        CheckCondition: UNREACHABLE COPY TARGET: the HBA has no such unit.
    """
    if naa == lu.identity.naa:
        return lu, None
    for lun, peer in lu.hba_units.items():
        if naa == peer.identity.naa:
            return peer, lun
    raise aborted(Asc.UNREACHABLE_COPY_TARGET)


def aborted(asc: Asc) -> CheckCondition:
    """Return COPY ABORTED."""
    return CheckCondition(Sense(SenseKey.COPY_ABORTED, asc))


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a copy.

    Attributes:
        unit: The unit.
        lun: Its LUN; None if it is the unit that received the command.
        offset: First byte.
    """

    unit: LogicalUnit
    lun: int | None
    offset: int

    def route(self, operation: MediumOp) -> MediumOp | OnUnit:
        """Return the block operation to yield, so that `operation` is done on this unit's medium."""
        return operation if self.lun is None else OnUnit(self.lun, operation)

    def check(self, length: int, *, writing: bool) -> None:
        """Check that `length` bytes can be read or written here.

        Raises:
            CheckCondition: The medium is not ready, write protected, or ends before that.
        """
        if not self.unit.readiness.present or self.unit.readiness.erasure is not None:
            raise aborted(Asc.UNREACHABLE_COPY_TARGET)
        if writing and not self.unit.writable:
            raise aborted(Asc.WRITE_PROTECTED)
        if self.offset + length > self.unit.geometry.size:
            raise aborted(Asc.NO_ADDITIONAL_SENSE_INFORMATION)


def copy(source: Place, destination: Place, length: int, operation: CopyOperation) -> Background:
    """Copy `length` bytes; source and destination may overlap.

    Raises:
        CheckCondition: COPY ABORTED: the source or the destination failed.
    """
    source.check(length, writing=False)
    destination.check(length, writing=True)
    scratch = memoryview(bytearray(min(length, _PIECE)))
    fua = destination.unit.write_through
    try:
        for piece in _pieces(source, destination, length):
            views = [scratch[: piece.length]]
            source.check(length, writing=False)  # ejected or resized since the last piece?
            yield source.route(Read(source.offset + piece.offset, views))
            destination.check(length, writing=True)
            yield destination.route(Write(destination.offset + piece.offset, views, fua=fua))
            operation.copied += piece.length
    except CheckCondition as condition:
        raise aborted(Asc.THIRD_PARTY_DEVICE_FAILURE) from condition


def _pieces(source: Place, destination: Place, length: int) -> Iterator[Extent]:
    """Cut `length` bytes into pieces, in an order in which none is overwritten before it is read."""
    starts = range(0, length, _PIECE)
    if source.unit is destination.unit and source.offset < destination.offset:
        starts = starts[::-1]
    return (Extent(start, min(_PIECE, length - start)) for start in starts)
