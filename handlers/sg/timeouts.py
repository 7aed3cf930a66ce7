"""Time limits of commands that are passed on, by the type of the device and the command.

A limit that is too short is worse than one that is too long: when it ends, the kernel aborts the command and
resets the device, and a tape or a disc that was being written is spoilt. The values are those that
manufacturers recommend (IBM and HPE LTO SCSI references, "Command timeouts"; MMC-6 "Timeout and sequence
requirements"), or what Linux' own drivers allow (``drivers/scsi/st.c``, ``ch.c``), whichever is longer.
"""

from typing import Final

from vscsihba.handlers.sg.cdb import CD

TAPE: Final = 0x01
CHANGER: Final = 0x08
"""PERIPHERAL DEVICE TYPEs (SPC-5 "INQUIRY")."""
_DAY: Final = 24 * 3600.0
_TAPE_MOTION: Final = 2940.0
"""Seconds from one end of an LTO tape to the other, with error recovery: the longest that a READ(6), a
WRITE(6) or a flush of the drive's buffer may take."""
_BURNER_FLUSH: Final = 1800.0
"""Seconds in which a burner has written its buffer and closed what it is writing to."""
_ROBOT: Final = 600.0

_LONG: Final = frozenset(
    {
        0x04,  # FORMAT UNIT, FORMAT MEDIUM
        0x07,  # REASSIGN BLOCKS, INITIALIZE ELEMENT STATUS
        0x1B,  # START STOP UNIT, LOAD UNLOAD
        0x1D,  # SEND DIAGNOSTIC
        0x48,  # SANITIZE
    }
)
"""Of every type."""
_LONG_BY_TYPE: Final = {
    TAPE: frozenset(
        {
            0x01,  # REWIND
            0x11,  # SPACE(6)
            0x19,  # ERASE(6)
            0x2B,  # LOCATE(10)
            0x82,  # ALLOW OVERWRITE
            0x91,  # SPACE(16)
            0x92,  # LOCATE(16)
            0x93,  # ERASE(16)
        }
    ),
    CD: frozenset(
        {
            0x53,  # RESERVE TRACK
            0x54,  # SEND OPC INFORMATION
            0x5B,  # CLOSE TRACK SESSION
            0xA1,  # BLANK
            0xA6,  # LOAD/UNLOAD MEDIUM
        }
    ),
    CHANGER: frozenset(
        {
            0x2B,  # POSITION TO ELEMENT
            0x37,  # INITIALIZE ELEMENT STATUS WITH RANGE
            0xA5,  # MOVE MEDIUM
            0xA6,  # EXCHANGE MEDIUM
            0xE7,  # INITIALIZE ELEMENT STATUS WITH RANGE, as older changers have it
        }
    ),
}
_FLUSHING: Final = frozenset({0x2A, 0x2E, 0x35, 0x5D, 0xAA, 0xBF})
"""WRITE(10), WRITE AND VERIFY(10), SYNCHRONIZE CACHE(10), SEND CUE SHEET, WRITE(12), SEND DISC STRUCTURE."""


def timeout_of(cdb: bytes, device_type: int, least: float) -> float:
    """Return the seconds that a device may take for a command.

    Args:
        cdb: One byte or more.
        device_type: PERIPHERAL DEVICE TYPE of the device.
        least: Seconds that every command may take.
    """
    code = cdb[0]
    if code in _LONG or code in _LONG_BY_TYPE.get(device_type, ()):
        return _DAY
    if device_type == TAPE:
        return max(least, _TAPE_MOTION)
    if device_type == CHANGER:
        return max(least, _ROBOT)
    if device_type == CD and code in _FLUSHING:
        return max(least, _BURNER_FLUSH)
    return least
