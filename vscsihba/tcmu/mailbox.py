"""The mailbox at the head of a TCMU map: place of the ring, and capabilities of the kernel.

A difference between kernels is a flag here, never a version number.
"""

import struct
from dataclasses import dataclass

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi

_MAILBOX = struct.Struct("=HHII")
"""version, flags, cmdr_off, cmdr_size"""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The constant part of the mailbox.

    Attributes:
        flags: Capabilities, ``TCMU_MAILBOX_FLAG_CAP_*``.
        start: First byte of the ring, from the start of the map.
        end: First byte after the ring, where the data area begins.
    """

    flags: int
    start: int
    end: int


def read_mailbox(memory: memoryview) -> Mailbox:
    """Return the mailbox of a map.

    Raises:
        RingCorruptError: It is not of this ABI.
    """
    if len(memory) < abi.MAILBOX_SIZE:
        raise RingCorruptError(f"a map of {len(memory)} bytes has no room for a mailbox")
    version, flags, off, size = _MAILBOX.unpack_from(memory)
    if version != abi.TCMU_MAILBOX_VERSION:
        raise RingCorruptError(f"mailbox version is {version}, not {abi.TCMU_MAILBOX_VERSION}")
    if not flags & abi.TCMU_MAILBOX_FLAG_CAP_OOOC:
        raise RingCorruptError("the kernel completes in order only", cure="use Linux 4.0 or newer")
    unaligned = off % abi.TCMU_OP_ALIGN_SIZE or size % abi.TCMU_OP_ALIGN_SIZE
    if unaligned or not size or off < abi.MAILBOX_SIZE or off + size + abi.CMD_ENTRY_SIZE > len(memory):
        raise RingCorruptError(f"a ring of {size} bytes at {off} does not fit a map of {len(memory)}")
    return Mailbox(flags, off, off + size)


def read_tail(memory: memoryview, mailbox: Mailbox) -> int:
    """Return `cmd_tail`, the position in the ring of the oldest entry that the kernel waits for.

    Raises:
        RingCorruptError: It is not a position of an entry.
    """
    (tail,) = struct.unpack_from("=I", memory, abi.CMD_TAIL_OFFSET)
    size = mailbox.end - mailbox.start
    if tail >= size or tail % abi.TCMU_OP_ALIGN_SIZE:
        raise RingCorruptError(f"cmd_tail {tail} is no position in a ring of {size} bytes")
    return int(tail)
