"""A TCMU ring server of the smallest kind: a disk of zeroes that forgets what is written.

Answers what Linux asks of a new disk, in order and one at a time, with no help of the
product: a test of configfs then has only configfs to blame.
"""

import contextlib
import mmap
import os
import select
import struct
import threading
from pathlib import Path

_CMD = 1
_INQUIRY = bytes([0, 0, 6, 2, 31, 0, 0, 2]) + b"VSCSIHBAminimal ring    0001"
_NO_SUCH_OPCODE = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0])
_DONE_WITHOUT_DATA = {0x00, 0x35, 0x91, 0x2A, 0x8A, 0x1E}


class MinimalRing:
    """Serves one ring in a thread until it is closed or the kernel removes the device."""

    def __init__(self, uio: Path, size: int, refused: int | None = None) -> None:
        self.size, self.refused = size, refused
        self.seen: list[int] = []
        self._fd = os.open(uio, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._map = mmap.mmap(
            self._fd, int(Path(f"/sys/class/uio/{uio.name}/maps/map0/size").read_text(), 16)
        )
        self._start, self._ring = struct.unpack_from("<II", self._map, 4)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._map.close()
        os.close(self._fd)
        os.close(self._stop)

    def _serve(self) -> None:
        ready: list[int] = []
        with contextlib.suppress(OSError):  # EIO: the device is gone
            while self._stop not in ready:
                self._drain()
                ready, _, _ = select.select([self._fd, self._stop], [], [])
                with contextlib.suppress(BlockingIOError):
                    os.read(self._fd, 4)

    def _drain(self) -> None:
        (tail,) = struct.unpack_from("<I", self._map, 64)
        while (tail,) != struct.unpack_from("<I", self._map, 12):
            (word,) = struct.unpack_from("<I", self._map, self._start + tail)
            if word & 7 == _CMD:
                self._answer(self._start + tail)
            tail = (tail + (word & ~7)) % self._ring
            struct.pack_into("<I", self._map, 64, tail)
            os.write(self._fd, bytes(4))

    def _answer(self, slot: int) -> None:
        (pieces,), (cdb,) = (
            struct.unpack_from("<I", self._map, slot + 8),
            struct.unpack_from("<Q", self._map, slot + 24),
        )
        opcode, action = self._map[cdb], self._map[cdb + 1] & 0x1F
        self.seen.append(opcode)
        data = None if opcode == self.refused else self._data(opcode, action)
        good = opcode != self.refused and (data is not None or opcode in _DONE_WITHOUT_DATA)
        for base, length in [struct.unpack_from("<QQ", self._map, slot + 48 + 16 * n) for n in range(pieces)]:
            if data is not None:
                self._map[base : base + length] = data[:length].ljust(length, b"\0")
                data = data[length:]
        self._map[slot + 7] = 0
        struct.pack_into("<B7x96s", self._map, slot + 8, 0 if good else 2, b"" if good else _NO_SUCH_OPCODE)

    def _data(self, opcode: int, action: int) -> bytes | None:
        blocks = self.size // 512
        return {
            0x12: _INQUIRY if not action & 1 else None,
            0x25: struct.pack(">II", blocks - 1, 512),
            0x9E: struct.pack(">QI", blocks - 1, 512) if action == 0x10 else None,
            0x28: b"",
            0x88: b"",
        }.get(opcode)
