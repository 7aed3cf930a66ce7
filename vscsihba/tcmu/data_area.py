"""The data area of one TCMU device: views of the bytes that iovecs name, with bounds checks.

The kernel maps pages of the area only while a live iovec names them; touching any
other byte can end the process with SIGBUS (drivers/target/target_core_user.c,
tcmu_vma_fault). So no access here goes beyond the given iovecs.
"""

import struct

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi

_IOVEC = struct.Struct("=QQ")


class DataArea:
    """The bytes of the map behind the ring.

    Args:
        memory: The whole map.
        start: First byte of the data area.
    """

    def __init__(self, memory: memoryview, start: int) -> None:
        self._memory = memory
        self.start = start
        self.end = len(memory)

    def views(self, entries: memoryview, at: int, count: int, limit: int) -> list[memoryview]:
        """Return the data buffer of the command entry at byte `at` of `entries`, from its `count` iovecs.

        The status of a completion overwrites iov_cnt: a process that was killed after an in-place completion
        and before the publication has left a request with a count of 0. The kernel clears an
        entry before it fills it (queue_cmd_ring) and no iovec is empty, so they can be counted.

        Raises:
            RingCorruptError: The iovecs reach beyond byte `limit`, or one leaves the data area.
        """
        first = at + abi.IOV_OFFSET
        after = first + count * _IOVEC.size if count else limit - (limit - first) % _IOVEC.size
        if after > limit:
            raise RingCorruptError(f"a command of {limit - at} bytes claims {count} iovecs")
        views = []
        for base, length in _IOVEC.iter_unpack(entries[first:after]):
            if not length and not count:
                break
            if not self.start <= base <= self.end - length:
                raise RingCorruptError(f"an iovec of {length} bytes at {base} leaves the data area")
            views.append(self._memory[base : base + length])
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
        """Release the map."""
        self._memory.release()
