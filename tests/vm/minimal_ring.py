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

_CMD, _PAD = 1, 0
_INQUIRY = bytes([0, 0, 6, 2, 31, 0, 0, 2]) + b"VSCSIHBAminimal ring    0001"
_NO_SUCH_OPCODE = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0])
_DONE_WITHOUT_DATA = {0x00, 0x35, 0x91, 0x2A, 0x8A, 0x1E, 0x2F, 0x8F}


class MinimalRing:
    """Serves one ring in a thread until it is closed."""

    def __init__(self, uio: Path, size: int) -> None:
        self.seen: list[int] = []
        self.lost = False
        self._blocks = size // 512
        self._fd = os.open(uio, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        length = int(Path(f"/sys/class/uio/{uio.name}/maps/map0/size").read_text(), 16)
        self._map = mmap.mmap(self._fd, length)
        self._start, self._ring = struct.unpack_from("<II", self._map, 4)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join(10)
        self._map.close()
        os.close(self._fd)
        os.close(self._stop)

    def _serve(self) -> None:
        while self._drain():
            ready, _, _ = select.select([self._fd, self._stop], [], [])
            if self._stop in ready:
                return
            with contextlib.suppress(BlockingIOError):
                try:
                    os.read(self._fd, 4)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    self.lost = True
                    return

    def _drain(self) -> bool:
        head, tail = struct.unpack_from("<I", self._map, 12)[0], struct.unpack_from("<I", self._map, 64)[0]
        while tail != head:
            slot = self._start + tail
            (word,) = struct.unpack_from("<I", self._map, slot)
            if word & 7 == _CMD:
                self._answer(slot)
            tail = (tail + (word & ~7)) % self._ring
            struct.pack_into("<I", self._map, 64, tail)
            with contextlib.suppress(OSError):
                os.write(self._fd, bytes(4))
        return True

    def _answer(self, slot: int) -> None:
        count = struct.unpack_from("<I", self._map, slot + 8)[0]
        cdb_at = struct.unpack_from("<Q", self._map, slot + 24)[0]
        pieces = [struct.unpack_from("<QQ", self._map, slot + 48 + 16 * n) for n in range(count)]
        opcode, second = self._map[cdb_at], self._map[cdb_at + 1]
        self.seen.append(opcode)
        data = self._data(opcode, second & 0x1F)
        good = data is not None or opcode in _DONE_WITHOUT_DATA
        if data is not None:
            for base, length in pieces:
                self._map[base : base + length] = data[:length].ljust(length, b"\0")
                data = data[length:]
        response = struct.pack("<BxxxI", 0 if good else 2, 0) + (b"" if good else _NO_SUCH_OPCODE).ljust(
            96, b"\0"
        )
        self._map[slot + 7] = 0
        self._map[slot + 8 : slot + 8 + len(response)] = response

    def _data(self, opcode: int, action: int) -> bytes | None:
        if opcode == 0x12 and not action & 1:
            return _INQUIRY
        if opcode == 0x25:
            return struct.pack(">II", min(self._blocks - 1, 0xFFFFFFFF), 512)
        if opcode == 0x9E and action == 0x10:
            return struct.pack(">QI", self._blocks - 1, 512)
        if opcode in (0x28, 0x88):
            return b""
        return None
