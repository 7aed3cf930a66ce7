"""The structure that commands come in, as the original's header has it, and its values.

Knows the memory layout; who fills a structure in, and what a value leads to, is said in
`vscsihba.vscsiapi.calls`.
"""

import ctypes
from enum import IntEnum
from typing import TYPE_CHECKING

SCSI_DATA_READ = ord("I")
"""`direction`: the initiator reads, or nothing is transferred (then `request_bufflen` is 0)."""
SCSI_DATA_NONE = SCSI_DATA_READ
"""`direction`: nothing is transferred; the original has no letter of its own for it."""
SCSI_DATA_WRITE = ord("O")
"""`direction`: the initiator writes; `receive_scsi_data` fetches what."""

TASK_COMMAND = ord("C")
"""`type`: a SCSI command."""
TASK_MANAGEMENT = ord("M")
"""`type`: a task management request; looks like a TEST UNIT READY to whoever does not know the type."""

SENSE_IN_BUFFER = 0x80
"""Bit of `status`: `request_buffer` holds sense data; see `set_sense`."""


class Code(IntEnum):
    """What the calls return. Every error is negative, and leaves the command as it was."""

    OK = 0
    NOTHING = 1
    """Nothing is queued (get), or the command brings no data (receive)."""
    FAILED = -1
    """The ring cannot be served or the kernel refused; `last_error` tells more."""
    BAD_TASK = -2
    """The argument is no `user_scsitap_task`."""
    BAD_SESSION = -3
    """`session` was never registered, or is closed, or everything is detached."""
    NOT_OPEN = -4
    """`cmd_number` is no command of the session's that waits for an answer: it is finished, or invented."""
    BAD_BUFFER = -5
    """`request_buffer` and `request_bufflen` are not inside memory that a get has put there."""
    BAD_STATUS = -6
    """`status` is no SCSI status."""


if TYPE_CHECKING:
    _Bytes = ctypes._Pointer[ctypes.c_ubyte]  # noqa: SLF001 - the only name that its type has
else:
    _Bytes = ctypes.POINTER(ctypes.c_ubyte)


class user_scsitap_task(ctypes.Structure):  # noqa: N801 - the original's name
    """One command, in the original's layout.

    One that is made by hand needs only its `session`: the first get gives it a buffer.

    Attributes:
        cmd_number: Tells the command apart; never used again while the process lives.
        type: `TASK_COMMAND` or `TASK_MANAGEMENT`.
        direction: `SCSI_DATA_READ` or `SCSI_DATA_WRITE`.
        lun: Number of the LUN.
        cdblen: Bytes of the CDB, which may be more than fit in `cdb`: see `get_cdb`.
        cdb: The first 16 bytes of the CDB.
        request_bufflen: Bytes that are to be transferred; before a completion, bytes of data-in.
        request_buffer: The data: room for at least `request_bufflen` bytes.
        status: SCSI status to complete the command with; 0 (GOOD) after a get.
        session: A descriptor that can be polled: readable when a get is worth a call.
    """

    cmd_number: int
    type: int
    direction: int
    lun: int
    cdblen: int
    cdb: ctypes.Array[ctypes.c_ubyte]
    request_bufflen: int
    request_buffer: _Bytes
    status: int
    session: int

    _fields_ = (
        ("cmd_number", ctypes.c_uint),
        ("type", ctypes.c_ubyte),
        ("direction", ctypes.c_ubyte),
        ("lun", ctypes.c_uint),
        ("cdblen", ctypes.c_ubyte),
        ("cdb", ctypes.c_ubyte * 16),
        ("request_bufflen", ctypes.c_int),
        ("request_buffer", ctypes.POINTER(ctypes.c_ubyte)),
        ("status", ctypes.c_int),
        ("session", ctypes.c_int),
    )
