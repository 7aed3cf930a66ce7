"""A lock-free counter on a disk: READ, then COMPARE AND WRITE of one more, by SG_IO.

What the initiator is told must agree with what is on the disk, whoever is killed meanwhile.
"""

import errno
import os
import struct
from pathlib import Path

from tests.vm.sg_io import send


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
