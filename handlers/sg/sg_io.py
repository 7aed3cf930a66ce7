"""SG_IO: one SCSI command sent to a device node of the kernel, and its result.

Knows ``include/scsi/sg.h`` (version 3 of the interface), not what a command means.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from ctypes import c_int, c_ubyte, c_uint, c_ushort, c_void_p
from dataclasses import dataclass

from vscsihba.block import Buffer, Views
from vscsihba.handlers.sg.cdb import Direction

_SG_IO = 0x2285
_BLKSECTGET = 0x1267
_INTERFACE = ord("S")
_MOST_PIECES = 1024
"""UIO_MAXIOV: pieces of memory in one request."""
_SENSE = 252
"""Bytes of the longest sense data (SPC-5 "Sense data")."""

_HOST_ERRNO = {
    0x01: errno.ENOTCONN,  # DID_NO_CONNECT
    0x02: errno.EAGAIN,  # DID_BUS_BUSY
    0x03: errno.ETIMEDOUT,  # DID_TIME_OUT
    0x05: errno.ECONNABORTED,  # DID_ABORT
    0x08: errno.ECONNRESET,  # DID_RESET
    0x0B: errno.EAGAIN,  # DID_SOFT_ERROR
    0x0C: errno.EAGAIN,  # DID_IMM_RETRY
    0x0D: errno.EAGAIN,  # DID_REQUEUE
    0x0E: errno.ENOTCONN,  # DID_TRANSPORT_DISRUPTED
    0x0F: errno.ENOTCONN,  # DID_TRANSPORT_FAILFAST
}
"""What the adapter says of a command that got no status (include/scsi/scsi_status.h)."""
_DRIVER_TIMEOUT = 0x06
"""DRIVER_TIMEOUT, as kernels before 5.14 said it."""


class _Header(ctypes.Structure):
    """``struct sg_io_hdr``."""

    _fields_ = (
        ("interface_id", c_int),
        ("dxfer_direction", c_int),
        ("cmd_len", c_ubyte),
        ("mx_sb_len", c_ubyte),
        ("iovec_count", c_ushort),
        ("dxfer_len", c_uint),
        ("dxferp", c_void_p),
        ("cmdp", c_void_p),
        ("sbp", c_void_p),
        ("timeout", c_uint),
        ("flags", c_uint),
        ("pack_id", c_int),
        ("usr_ptr", c_void_p),
        ("status", c_ubyte),
        ("masked_status", c_ubyte),
        ("msg_status", c_ubyte),
        ("sb_len_wr", c_ubyte),
        ("host_status", c_ushort),
        ("driver_status", c_ushort),
        ("resid", c_int),
        ("duration", c_uint),
        ("info", c_uint),
    )


class _Piece(ctypes.Structure):
    """``struct sg_iovec``."""

    _fields_ = (("iov_base", c_void_p), ("iov_len", ctypes.c_size_t))


@dataclass(frozen=True, slots=True)
class SgResult:
    """The answer of a device.

    Attributes:
        status: Its SAM status.
        sense: Its sense data, empty if it gave none.
        moved: Bytes of the data that were transferred.
    """

    status: int
    sense: bytes
    moved: int

    @property
    def sense_key(self) -> int:
        """SENSE KEY; 0 if there is no sense data."""
        if len(self.sense) < 3:
            return 0
        is_descriptor = self.sense[0] & 0x7E == 0x72
        return self.sense[1 if is_descriptor else 2] & 0x0F


def send(fd: int, cdb: bytes, views: Views, direction: Direction, timeout: float) -> SgResult:
    """Send a command and wait for its answer.

    Args:
        fd: Of ``/dev/sgN``.
        cdb: The command, and no more.
        views: Its data, or room for it.
        direction: Which way the data goes.
        timeout: Seconds; after that the kernel aborts the command, and resets what it must.

    Raises:
        OSError: The command got no status: ETIMEDOUT, ENOTCONN, EREMOTEIO and the like.
    """
    if len(views) > _MOST_PIECES:
        return _send_in_one_piece(fd, cdb, views, direction, timeout)
    length = sum(map(len, views))
    memory = [_memory(view) for view in views]
    pieces = (_Piece * len(memory))(*[_Piece(ctypes.addressof(each), len(each)) for each in memory])
    command = (c_ubyte * len(cdb)).from_buffer_copy(cdb)
    sense = (c_ubyte * _SENSE)()
    header = _Header(
        interface_id=_INTERFACE,
        dxfer_direction=direction if length else Direction.NONE,
        cmd_len=len(cdb),
        mx_sb_len=len(sense),
        iovec_count=len(pieces) if length else 0,
        dxfer_len=length,
        dxferp=ctypes.addressof(pieces) if length else None,
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=max(1, min(round(timeout * 1000), 0xFFFF_FFFF)),
    )
    fcntl.ioctl(fd, _SG_IO, header)
    _check_status(header)
    moved = max(0, min(length, length - header.resid))
    return SgResult(header.status & 0x7E, bytes(sense[: header.sb_len_wr]), moved)


def most_bytes(fd: int) -> int:
    """Return the bytes that the adapter behind ``/dev/sgN`` moves in one command; 0 if unknown."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, _BLKSECTGET, bytes(4)), "little")
    except OSError:
        return 0


def _send_in_one_piece(fd: int, cdb: bytes, views: Views, direction: Direction, timeout: float) -> SgResult:
    """Send a command whose data is in too many pieces for the kernel."""
    buffer = Buffer(views)
    with mmap.mmap(-1, buffer.length) as whole:
        if direction is Direction.OUT:
            whole[:] = buffer.gather()
        with memoryview(whole) as view:
            outcome = send(fd, cdb, [view], direction, timeout)
        if direction is Direction.IN:
            buffer.scatter(whole[: outcome.moved])
    return outcome


def _memory(view: memoryview) -> "ctypes.Array[c_ubyte]":
    """Return a view's memory as a ctypes array; of a read-only view, a copy."""
    kind = c_ubyte * len(view)
    return kind.from_buffer_copy(view) if view.readonly else kind.from_buffer(view)


def _check_status(header: _Header) -> None:
    """Raise the error of a command that did not reach the device, or timed out.

    Raises:
        OSError: That was so.
    """
    if header.host_status:
        number = _HOST_ERRNO.get(header.host_status, errno.EREMOTEIO)
    elif header.driver_status & 0x0F == _DRIVER_TIMEOUT:
        number = errno.ETIMEDOUT
    else:
        return
    raise OSError(number, f"{os.strerror(number)} (host status {header.host_status:#04x})")
