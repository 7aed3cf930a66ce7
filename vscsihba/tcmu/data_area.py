"""The data area of one TCMU device: bounds-checked views of what iovecs name.

The kernel maps pages of the area only while a live iovec names them; touching any
other byte can end the process with SIGBUS (drivers/target/target_core_user.c,
tcmu_vma_fault). So nothing here reaches beyond the iovecs that it is given.
"""

import struct

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi

_IOVEC = struct.Struct("=QQ")


class DataArea:
    """The bytes of the map behind the ring.

    Args:
        memory: The whole map.
        start: Where the data area begins, in bytes from the start of the map.
    """

    def __init__(self, memory: memoryview, start: int) -> None:
        self._memory = memory
        self.start = start
        self.end = len(memory)

    def views(self, entry: int, count: int, limit: int) -> list[memoryview]:
        """Return the data buffer that the `count` iovecs of the command entry at byte `entry` name.

        Raises:
            RingCorruptError: The iovecs reach beyond byte `limit`, or one leaves the data area.
        """
        memory = self._memory
        first = entry + abi.IOV_OFFSET
        after = first + count * _IOVEC.size
        if after > limit:
            raise RingCorruptError(f"a command of {limit - entry} bytes claims {count} iovecs")
        views = []
        for base, length in _IOVEC.iter_unpack(memory[first:after]):
            if not self.start <= base <= self.end - length:
                raise RingCorruptError(f"an iovec of {length} bytes at {base} leaves the data area")
            views.append(memory[base : base + length])
        return views

    @staticmethod
    def zero(views: list[memoryview], start: int) -> None:
        """Overwrite a buffer with zeroes from its byte `start` on."""
        for view in views:
            length = len(view)
            if start < length:
                view[start:] = bytes(length - start)
            start = max(0, start - length)

    def release(self) -> None:
        """Let go of the map."""
        self._memory.release()
