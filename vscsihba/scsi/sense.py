"""Sense data: the reason of a CHECK CONDITION.

Encodes both formats, fixed and descriptor, with the sense key specific field
(SPC-5, "Sense data"). Does not know which format a logical unit has chosen.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from vscsihba.scsi.asc import Asc


class SenseKey(IntEnum):
    """SENSE KEY, SPC-5 "Sense key and additional sense code definitions"."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF

    @property
    def words(self) -> str:
        """T10's words, such as ``ILLEGAL REQUEST``."""
        return self.name.replace("_", " ")


class SenseKeySpecific(Protocol):
    """The three bytes whose meaning depends on the sense key."""

    def encode(self) -> bytes:
        """Return the three bytes, SKSV set."""
        ...


@dataclass(frozen=True, slots=True)
class FieldPointer:
    """The place of the first wrong field (ILLEGAL REQUEST).

    Attributes:
        byte: Its first byte in the CDB or the parameter list.
        bit: Its most significant bit, None for a field of whole bytes.
        in_cdb: C/D bit: the CDB is wrong, not the parameter list.
    """

    byte: int
    bit: int | None = None
    in_cdb: bool = True

    def encode(self) -> bytes:
        """Return SKSV, C/D, BPV, BIT POINTER and FIELD POINTER."""
        pointer = 0 if self.bit is None else 0x08 | self.bit
        return bytes([0x80 | self.in_cdb << 6 | pointer]) + self.byte.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class ProgressIndication:
    """Progress of a long operation, in 65536ths (NO SENSE, NOT READY)."""

    indication: int

    def encode(self) -> bytes:
        """Return SKSV and PROGRESS INDICATION."""
        return b"\x80" + self.indication.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Sense:
    """One condition to report.

    Attributes:
        key: Sense key.
        asc: Additional sense code and qualifier.
        information: INFORMATION field, such as the LBA of a lost block.
        specific: Sense key specific field.
        deferred: It belongs to an earlier command that has ended with GOOD.
    """

    key: SenseKey
    asc: Asc
    information: int | None = None
    specific: SenseKeySpecific | None = None
    deferred: bool = False

    def encode(self, *, descriptor: bool = False) -> bytes:
        """Return the sense data in fixed format, or in descriptor format."""
        return self._descriptor() if descriptor else self._fixed()

    def _fixed(self) -> bytes:
        """Response codes 70h and 71h: 18 bytes; an INFORMATION over 32 bits is left out (VALID=0)."""
        data = bytearray(18)
        data[0] = 0x71 if self.deferred else 0x70
        data[2] = self.key
        data[7] = len(data) - 8
        data[12:14] = self.asc.to_bytes(2, "big")
        if self.information is not None and self.information <= 0xFFFFFFFF:
            data[0] |= 0x80
            data[3:7] = self.information.to_bytes(4, "big")
        if self.specific is not None:
            data[15:18] = self.specific.encode()
        return bytes(data)

    def _descriptor(self) -> bytes:
        """Response codes 72h and 73h: a header and the descriptors with contents."""
        descriptors = b""
        if self.information is not None:
            descriptors += b"\x00\x0a\x80\x00" + self.information.to_bytes(8, "big")
        if self.specific is not None:
            descriptors += b"\x02\x06\x00\x00" + self.specific.encode() + b"\x00"
        header = bytes([0x73 if self.deferred else 0x72, self.key]) + self.asc.to_bytes(2, "big")
        return header + bytes([0, 0, 0, len(descriptors)]) + descriptors


NO_SENSE = Sense(SenseKey.NO_SENSE, Asc.NO_ADDITIONAL_SENSE_INFORMATION)


class CheckCondition(Exception):  # noqa: N818
    """Ends a command with CHECK CONDITION: a status to report, not an error of the program.

    Caught in one place, `LogicalUnit.execute`.
    """

    def __init__(self, sense: Sense) -> None:
        self.sense = sense
        super().__init__(f"{sense.key.words}, {sense.asc.words}")


def illegal_request(asc: Asc, pointer: FieldPointer | None = None) -> CheckCondition:
    """Return ILLEGAL REQUEST."""
    return CheckCondition(Sense(SenseKey.ILLEGAL_REQUEST, asc, specific=pointer))


def invalid_parameter(byte: int, bit: int | None = None) -> CheckCondition:
    """Return INVALID FIELD IN PARAMETER LIST, pointing at the field."""
    return illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST, FieldPointer(byte, bit, in_cdb=False))
