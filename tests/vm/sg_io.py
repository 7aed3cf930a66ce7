"""SG_IO: one SCSI command to ``/dev/sgN``, past sd and the block layer (linux/include/scsi/sg.h)."""

import ctypes
import fcntl
from dataclasses import dataclass
from typing import Final

_SG_IO: Final = 0x2285
_NONE: Final = -1
_TO_DEVICE: Final = -2
_FROM_DEVICE: Final = -3
_SENSE_LENGTH: Final = 96
_TIMEOUT: Final = 120.0


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
class Told:
    """How a command ended, as the initiator sees it.

    Attributes:
        status: SAM status; 0 is GOOD.
        host: Status of the HBA; 0 when the disk answered.
        sense: As it came, without what does not belong to it.
        data: As much data-in as came.
    """

    status: int
    host: int
    sense: bytes
    data: bytes

    @property
    def good(self) -> bool:
        return self.status == 0 and self.host == 0

    @property
    def key(self) -> int:
        """Sense key, of fixed format sense data."""
        return self.sense[2] & 0xF if self.sense else 0


def send(fd: int, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0, timeout: float = _TIMEOUT) -> Told:
    """Send a command and wait for its end; after `timeout` seconds, the kernel aborts it.

    Args:
        fd: An open ``/dev/sgN`` or ``/dev/sdX``.
        cdb: The command descriptor block.
        data_out: The data sent with it.
        data_in: Bytes of room for what comes back, if nothing goes with it.
        timeout: Seconds.

    Raises:
        OSError: The kernel did not send it.
    """
    length = len(data_out) or data_in
    data = ctypes.create_string_buffer(data_out or bytes(data_in), max(length, 1))
    command = ctypes.create_string_buffer(cdb, len(cdb))
    sense = ctypes.create_string_buffer(_SENSE_LENGTH)
    header = _SgIoHdr(
        interface_id=ord("S"),
        dxfer_direction=_TO_DEVICE if data_out else _FROM_DEVICE if data_in else _NONE,
        cmd_len=len(cdb),
        mx_sb_len=_SENSE_LENGTH,
        dxfer_len=length,
        dxferp=ctypes.addressof(data),
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=int(timeout * 1000),
    )
    fcntl.ioctl(fd, _SG_IO, header)
    came = 0 if data_out else length - header.resid
    return Told(header.status, header.host_status, sense.raw[: header.sb_len_wr], data.raw[:came])
