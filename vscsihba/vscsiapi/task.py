"""The structure of a command, with the layout of the original's header, and its values.

Knows the memory layout; `vscsihba.vscsiapi.calls` knows what the values mean.
"""

import ctypes
from enum import IntEnum
from typing import TYPE_CHECKING

SCSI_DATA_READ = ord("I")
"""`direction`: the initiator reads, or no data is transferred (then `request_bufflen` is 0)."""
SCSI_DATA_NONE = SCSI_DATA_READ
"""`direction`: no data is transferred; the original has no letter of its own for that."""
SCSI_DATA_WRITE = ord("O")
"""`direction`: the initiator writes; `receive_scsi_data` fetches the data."""

TASK_COMMAND = ord("C")
"""`type`: a SCSI command."""
TASK_MANAGEMENT = ord("M")
"""`type`: a task management request; to programs that ignore the type it looks like a TEST UNIT READY."""

SENSE_IN_BUFFER = 0x80
"""Bit of `status`: `request_buffer` holds sense data; see `set_sense`."""


class Code(IntEnum):
    """Return codes of the calls. Errors are negative, and leave the command unchanged."""

    OK = 0
    NOTHING = 1
    """No command is queued (get), or the command has no data to receive (receive)."""
    FAILED = -1
    """The ring cannot be served, or the kernel refused; see `last_error`."""
    BAD_TASK = -2
    """The argument is not a `user_scsitap_task`."""
    BAD_SESSION = -3
    """`session` was never registered, or is closed or detached."""
    NOT_OPEN = -4
    """`cmd_number` is not an open command of the session: it is completed, or was never handed out."""
    BAD_BUFFER = -5
    """`request_buffer` and `request_bufflen` are not inside a buffer from a get."""
    BAD_STATUS = -6
    """`status` is not a SCSI status."""


if TYPE_CHECKING:
    _Bytes = ctypes._Pointer[ctypes.c_ubyte]  # noqa: SLF001 - the only name that its type has
else:
    _Bytes = ctypes.POINTER(ctypes.c_ubyte)


class user_scsitap_task(ctypes.Structure):  # noqa: N801 - the original's name
    """One command, in the original's layout.

    If you create one yourself, set `session` only: the first get gives it a buffer.

    Attributes:
        cmd_number: Number of the command, unique while the process runs.
        type: `TASK_COMMAND` or `TASK_MANAGEMENT`.
        direction: `SCSI_DATA_READ` or `SCSI_DATA_WRITE`.
        lun: Number of the LUN.
        cdblen: Length of the CDB in bytes, which may be longer than `cdb`: see `get_cdb`.
        cdb: The first 16 bytes of the CDB.
        request_bufflen: Bytes to be transferred; set it to the bytes of data-in before a completion.
        request_buffer: The data, at least `request_bufflen` bytes.
        status: SCSI status for the completion; 0 (GOOD) after a get.
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
