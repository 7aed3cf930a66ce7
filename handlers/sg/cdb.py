"""CDBs that are passed on: their length, and the direction of their data.

A ring tells neither. The length follows from the operation code; so does the direction,
but some codes mean one thing to a disk and another to a CD drive. What is not listed here
gives data, as most vendors' commands do. Codes are from SPC-5, SBC-4, SSC-5, SMC-3 and MMC-6.
"""

from enum import IntEnum

_LENGTHS = (6, 10, 10, 16, 16, 12, 10, 10)
"""Bytes by GROUP CODE, the upper three bits (SPC-5 "Operation code"; drivers/scsi/scsi_common.c)."""

VARIABLE_LENGTH = 0x7F
SERVICE_ACTION_OUT_16 = 0x9F

CD = 0x05
"""PERIPHERAL DEVICE TYPE of CD and DVD drives."""

_OUT = frozenset(
    {
        0x04,  # FORMAT UNIT
        0x07,  # REASSIGN BLOCKS
        0x0A,  # WRITE(6)
        0x15,  # MODE SELECT(6)
        0x18,  # COPY
        0x1D,  # SEND DIAGNOSTIC
        0x24,  # SET WINDOW
        0x2A,  # WRITE(10)
        0x2E,  # WRITE AND VERIFY(10)
        0x2F,  # VERIFY(10)
        0x30,  # SEARCH DATA HIGH
        0x31,  # SEARCH DATA EQUAL
        0x32,  # SEARCH DATA LOW
        0x39,  # COMPARE
        0x3A,  # COPY AND VERIFY
        0x3B,  # WRITE BUFFER
        0x3D,  # UPDATE BLOCK
        0x3F,  # WRITE LONG(10)
        0x40,  # CHANGE DEFINITION
        0x41,  # WRITE SAME(10)
        0x42,  # UNMAP
        0x48,  # SANITIZE
        0x4C,  # LOG SELECT
        0x50,  # XDWRITE(10)
        0x51,  # XPWRITE(10)
        0x55,  # MODE SELECT(10)
        0x5F,  # PERSISTENT RESERVE OUT
        0x83,  # EXTENDED COPY and its like
        0x87,  # ACCESS CONTROL OUT
        0x89,  # COMPARE AND WRITE
        0x8A,  # WRITE(16)
        0x8B,  # ORWRITE(16)
        0x8D,  # WRITE ATTRIBUTE
        0x8E,  # WRITE AND VERIFY(16)
        0x8F,  # VERIFY(16)
        0x93,  # WRITE SAME(16)
        0x9C,  # WRITE ATOMIC(16)
        SERVICE_ACTION_OUT_16,  # WRITE LONG(16)
        0xA4,  # MAINTENANCE OUT
        0xA9,  # SERVICE ACTION OUT(12)
        0xAA,  # WRITE(12)
        0xAE,  # WRITE AND VERIFY(12)
        0xAF,  # VERIFY(12)
        0xB5,  # SECURITY PROTOCOL OUT
        0xB6,  # SEND VOLUME TAG, SET STREAMING
    }
)
"""Operation codes that take data."""

_CD_OUT = (_OUT - {0x42, 0x51, 0xA4}) | {
    0x54,  # SEND OPC INFORMATION
    0x5D,  # SEND CUE SHEET
    0xA3,  # SEND KEY
    0xBF,  # SEND DISC STRUCTURE
}
"""For a CD drive, 42h is READ SUB-CHANNEL, 51h READ DISC INFORMATION, A4h REPORT KEY."""

_LONG_OUT = frozenset({0x0004, 0x0006, 0x000A, 0x000B, 0x000C, 0x000D, 0x000E, 0x000F, 0x0010})
"""Service actions of 7Fh that take data: XDWRITE, XPWRITE, VERIFY, WRITE, WRITE AND VERIFY,
WRITE SAME, ORWRITE, WRITE ATOMIC and WRITE STREAM with 32 bytes."""

_BOTH_WAYS = frozenset({0x53, 0x9D})
"""XDWRITEREAD(10), SERVICE ACTION BIDIRECTIONAL. For a CD drive, 53h is RESERVE TRACK, without data."""

_LONG_BOTH_WAYS = frozenset({0x0007})
"""XDWRITEREAD(32)."""


class Direction(IntEnum):
    """Direction of the data; the numbers are those of ``include/scsi/sg.h``."""

    NONE = -1
    OUT = -2
    IN = -3
    BOTH = -4


def length_of(cdb: bytes) -> int:
    """Return the bytes of `cdb` that are the command; the rest is padding."""
    if cdb[0] == VARIABLE_LENGTH and len(cdb) > 7:
        return min(len(cdb), 8 + cdb[7])
    return min(len(cdb), _LENGTHS[cdb[0] >> 5])


def direction_of(cdb: bytes, device_type: int) -> Direction:
    """Return the direction of the data of a command that has any.

    Args:
        cdb: One byte or more.
        device_type: PERIPHERAL DEVICE TYPE of the device (SPC-5 "INQUIRY").
    """
    if cdb[0] == VARIABLE_LENGTH:
        action = int.from_bytes(cdb[8:10], "big")
        out, both = action in _LONG_OUT, action in _LONG_BOTH_WAYS
    else:
        out = cdb[0] in (_CD_OUT if device_type == CD else _OUT)
        both = cdb[0] in _BOTH_WAYS and not (device_type == CD and cdb[0] == 0x53)
    if both:
        return Direction.BOTH
    return Direction.OUT if out else Direction.IN
