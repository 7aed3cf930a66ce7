"""A loopback with a protected data area: only iovecs of open commands are accessible (rule 12).

Run as a program: it serves commands of all kinds and dies of SIGSEGV at the first access
elsewhere, as it would of SIGBUS with the kernel's data area.
"""

import ctypes
import random

from tests.tcmu.server import READ_10, Server
from vscsihba.loopback import Loopback
from vscsihba.tcmu.kernel import BLOCK, KernelHalf

_PROT_NONE, _PROT_READ_WRITE = 0, 3
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class GuardedKernel(KernelHalf):
    """A kernel's half whose blocks are accessible only while a command uses them."""

    def __init__(self, blocks: int, flags: int) -> None:
        super().__init__(8192, blocks, flags)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + self.data_off
        for block in range(blocks):
            self._protect(block, _PROT_NONE)

    def _protect(self, block: int, protection: int) -> None:
        if _mprotect(self._base + block * BLOCK, BLOCK, protection):
            raise OSError(ctypes.get_errno(), "mprotect")

    def _take_blocks(self, count: int) -> list[int]:
        blocks = super()._take_blocks(count)
        for block in blocks:
            self._protect(block, _PROT_READ_WRITE)
        return blocks

    def _give_blocks(self, blocks: list[int]) -> None:
        super()._give_blocks(blocks)
        for block in blocks:
            self._protect(block, _PROT_NONE)


def serve(flags: int, rounds: int) -> None:
    """Complete commands of random shape in random order, in place and parked, in every way."""
    choice = random.Random(flags)
    server = Server(Loopback(kernel=GuardedKernel(32, flags)))

    def cut(_cdb_at: int, views: list[memoryview], _length: int, _cmd_id: int) -> bool:
        for view in views:
            view[:] = bytes(len(view))
        return choice.random() < 0.3

    for _ in range(rounds):
        if server.loopback.kernel.outstanding < 8:
            size = choice.choice((0, 1, 512, BLOCK, 3 * BLOCK - 7))
            out = choice.random() < 0.5
            server.loopback.submit(READ_10, data_out=bytes(size if out else 0), data_in=0 if out else size)
            server.fetch(cut)
        for tag in choice.sample(list(server.fetched), len(server.fetched) // 2):
            status = choice.choice((0, 0, 2, 8))
            server.answer(tag, status, bytes(18), data_in=choice.choice((None, 0, 1, 600)))
        server.ring.publish()
        if choice.random() < 0.02:
            server.loopback.reset_ring()


def touch_a_block_given_back() -> None:
    """Access a block of a completed command."""
    server = Server(Loopback(kernel=GuardedKernel(32, 0xF)))
    tag = server.one(data_in=512)
    view = server.fetched[tag].views[0]
    server.answer_all()
    view[0] = 1


if __name__ == "__main__":
    import sys

    if sys.argv[1:] == ["trespass"]:
        touch_a_block_given_back()
    else:
        serve(0xF, 1500)
        serve(0xF & ~2, 1500)
