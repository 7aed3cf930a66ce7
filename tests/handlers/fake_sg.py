"""SG_IO without a kernel: an ioctl that reads ``struct sg_io_hdr`` and asks a logical unit of ours.

It takes every address and length from the structure as the kernel would, so a field in the
wrong place is a test that fails. ``/dev/null`` stands in for the node.
"""

import ctypes
import fcntl
from typing import Any

import pytest

from tests.scsi.disk import Disk
from vscsihba.handlers.sg import device as sg_device

NODE = "/dev/null"
_SG_IO, _BLKSECTGET = 0x2285, 0x1267
_OUT, _IN = -2, -3
_NONE = -1
_INVALID_OPCODE = bytes([0x72, 5, 0x20, 0, 0, 0, 0, 0])


class FakeSg:
    """A device behind ``/dev/sgN``.

    Attributes:
        disk: The logical unit.
        commands: The commands sent: CDB, direction, pieces of memory, timeout in ms.
        host_status: The adapter's status of every command, which is then not sent.
        statuses: Statuses that the device gives to the next commands instead of executing them.
        unknown: Operation codes that the device refuses.
        limit: Bytes that the adapter moves at once; 0 if it does not say.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.commands: list[tuple[bytes, int, int, int]] = []
        self.host_status = 0
        self.statuses: list[tuple[int, bytes]] = []
        self.unknown: set[int] = set()
        self.limit = 0
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)
        monkeypatch.setattr(sg_device, "_SG_MAJOR", 1)

    def ioctl(self, fd: int, request: int, argument: Any) -> Any:
        if request == _BLKSECTGET:
            if not self.limit:
                raise OSError(25, "not a disk")
            return self.limit.to_bytes(4, "little")
        assert request == _SG_IO
        self._execute(argument)
        return 0

    def _execute(self, header: Any) -> None:
        assert header.interface_id == ord("S")
        cdb = ctypes.string_at(header.cmdp, header.cmd_len)
        self.commands.append((cdb, header.dxfer_direction, header.iovec_count, header.timeout))
        if self.host_status:
            header.host_status, header.resid = self.host_status, header.dxfer_len
            return
        pieces = _pieces(header)
        assert sum(length for _, length in pieces) == header.dxfer_len
        if cdb[0] in self.unknown:
            self.statuses = [(2, _INVALID_OPCODE)]
        if self.statuses:
            header.status, sense = self.statuses.pop(0)
            header.resid = header.dxfer_len
        elif header.dxfer_direction == _IN:
            answer = self.disk.run(cdb, room=header.dxfer_len)
            header.status, sense = answer.status, answer.sense
            header.resid = header.dxfer_len - _scatter(answer.data, pieces)
        else:
            assert header.dxfer_direction == (_OUT if pieces else _NONE)
            data = b"".join(ctypes.string_at(base, length) for base, length in pieces)
            answer = self.disk.run(cdb, data)
            header.status, sense = answer.status, answer.sense
        header.sb_len_wr = min(len(sense), header.mx_sb_len)
        ctypes.memmove(header.sbp, sense, header.sb_len_wr)


def _pieces(header: Any) -> list[tuple[int, int]]:
    """Return address and length of each piece of memory (``struct sg_iovec``)."""
    words = ctypes.c_uint64 * (2 * header.iovec_count)
    flat = words.from_address(header.dxferp) if header.iovec_count else ()
    return [(flat[at], flat[at + 1]) for at in range(0, len(flat), 2)]


def _scatter(data: bytes, pieces: list[tuple[int, int]]) -> int:
    at = 0
    for base, length in pieces:
        part = data[at : at + length]
        ctypes.memmove(base, part, len(part))
        at += len(part)
    return at
