"""SG_IO: one SCSI command to ``/dev/sgN``, from Python (linux/include/scsi/sg.h)."""

import ctypes
import fcntl
from dataclasses import dataclass
from typing import Final

_SG_IO: Final = 0x2285
_DXFER_NONE: Final = -1
_DXFER_FROM_DEV: Final = -3
_MILLISECONDS: Final = 20_000


class _SgIoHdr(ctypes.Structure):
    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command.

    Attributes:
        status: SAM status; 0 is GOOD.
        sense: As it came, without what does not belong to it.
        data: As much as came.
        host: Status of the HBA; 0 when the disk answered.
    """

    status: int
    sense: bytes
    data: bytes
    host: int = 0


def execute(fd: int, cdb: bytes, length: int = 0) -> Reply:
    """Send a command with at most `length` bytes of data-in, and return the answer.

    Raises:
        OSError: The kernel did not send it.
    """
    command = ctypes.create_string_buffer(cdb, len(cdb))
    data = ctypes.create_string_buffer(max(length, 1))
    sense = ctypes.create_string_buffer(96)
    header = _SgIoHdr(
        interface_id=ord("S"),
        dxfer_direction=_DXFER_FROM_DEV if length else _DXFER_NONE,
        cmd_len=len(cdb),
        mx_sb_len=len(sense),
        dxfer_len=length,
        dxferp=ctypes.addressof(data),
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=_MILLISECONDS,
    )
    fcntl.ioctl(fd, _SG_IO, header)
    return Reply(
        header.status, sense.raw[: header.sb_len_wr], data.raw[: length - header.resid], header.host_status
    )
