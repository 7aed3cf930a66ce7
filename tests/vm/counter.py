"""A lock-free counter on a disk: READ, then COMPARE AND WRITE of one more, through SG_IO (scsi/sg.h).

What the initiator is told must agree with what is on the disk, whoever is killed meanwhile.
"""

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_SG_IO = 0x2285
_NONE, _TO_DEVICE, _FROM_DEVICE = -1, -2, -3
_TIMEOUT = 120.0


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


@dataclass(frozen=True)
class Told:
    """How a command ended, as the initiator sees it."""

    status: int
    host: int
    sense: bytes
    data: bytes

    @property
    def good(self) -> bool:
        return self.status == 0 and self.host == 0

    @property
    def key(self) -> int:
        """Sense key."""
        return self.sense[2] & 0xF if self.sense else 0


def send(fd: int, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0, timeout: float = _TIMEOUT) -> Told:
    """Send a command with SG_IO and wait for its end; after `timeout` seconds, the kernel aborts it."""
    length = len(data_out) or data_in
    data = ctypes.create_string_buffer(data_out or bytes(max(data_in, 1)), max(length, 1))
    command = ctypes.create_string_buffer(cdb, len(cdb))
    sense = ctypes.create_string_buffer(64)
    header = _SgIoHdr(
        interface_id=ord("S"),
        dxfer_direction=_TO_DEVICE if data_out else _FROM_DEVICE if data_in else _NONE,
        cmd_len=len(cdb),
        mx_sb_len=64,
        dxfer_len=length,
        dxferp=ctypes.cast(data, ctypes.c_void_p).value,
        cmdp=ctypes.cast(command, ctypes.c_void_p).value,
        sbp=ctypes.cast(sense, ctypes.c_void_p).value,
        timeout=int(timeout * 1000),
    )
    fcntl.ioctl(fd, _SG_IO, header)
    return Told(header.status, header.host_status, sense.raw[: header.sb_len_wr], data.raw[:data_in])


class Counter:
    """The counter in block 0 of a disk, and what was told of it."""

    def __init__(self, sg: Path) -> None:
        self._fd = os.open(sg, os.O_RDWR)
        self.told_good = self.in_doubt = 0
        self.value = self.read()

    def read(self) -> int:
        """READ(10) of the counter; tries again while the disk is between two owners."""
        for _ in range(100):
            told = send(self._fd, bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), data_in=512)
            if told.good:
                return int(struct.unpack_from("<Q", told.data)[0])
        raise OSError(errno.EIO, f"the counter cannot be read: {told}")

    def increment(self) -> None:
        """COMPARE AND WRITE one more; check what is there against what was told."""
        old = struct.pack("<Q504x", self.value)
        new = struct.pack("<Q504x", self.value + 1)
        cdb = bytes([0x89, 0]) + bytes(8) + bytes([0, 0, 0, 1, 0, 0])
        told = send(self._fd, cdb, data_out=old + new)
        if told.good:
            self.told_good += 1
            self.value += 1
            return
        assert told.key != 0xE, f"a miscompare: the counter is not {self.value}, as was told"
        now = self.read()
        assert now in (self.value, self.value + 1), f"{self.value} became {now}"
        self.in_doubt += now != self.value
        self.value = now

    def close(self) -> None:
        os.close(self._fd)
