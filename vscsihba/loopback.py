"""The initiator's and the kernel's half of a ring, in this process.

Everything that serves a TCMU device can serve a `Loopback`: the bytes of mailbox, ring
and data area are the kernel's (drivers/target/target_core_user.c), and so is the
behaviour that an engine must get right: pages are reused dirty, entries are padded at
the end of the ring, slots are recycled once the tail has passed, answers are matched by
the id in the slot, an id that is not known breaks the ring. It needs no kernel, no root
and no device, so that tests, benchmarks and programs can run the whole stack anywhere.
"""

import mmap
import os
import select
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.ring import Ring
from vscsihba.transport import TaskManagement

BLOCK = 4096
"""Bytes of one block of the data area (data_pages_per_blk=1)."""
_STALE = b"\xa5"
_HEADER = struct.Struct("=IHBB")
_REQUEST = struct.Struct("=III4xQQQ")
_IOVEC = struct.Struct("=QQ")
_RESPONSE = struct.Struct("=B3xI")


@dataclass(slots=True)
class Answer:
    """What the initiator is told.

    Attributes:
        status: SAM status.
        sense: Sense data as delivered, 96 bytes with CHECK CONDITION, else empty.
        data: The initiator's data-in buffer, as far as the kernel filled it.
        residual: Bytes asked for and not delivered.
    """

    status: int
    sense: bytes
    data: bytes
    residual: int


@dataclass(slots=True)
class _Command:
    blocks: list[int]
    length: int
    data_in: bool
    expired: bool = field(default=False)


class Loopback:
    """A ring with both ends in this process; the serving end is `transport`.

    Args:
        ring_size: Bytes of the command ring, a multiple of 8.
        blocks: Blocks of the data area, `BLOCK` bytes each.
        flags: Capabilities of the mailbox.
    """

    def __init__(self, *, ring_size: int = 64 * 1024 - 128, blocks: int = 1024, flags: int = 0xF) -> None:
        off = abi.MAILBOX_SIZE
        self._data = -(-(off + ring_size) // BLOCK) * BLOCK
        self._map = mmap.mmap(-1, self._data + blocks * BLOCK)
        self.memory = memoryview(self._map)
        self.memory[self._data :] = _STALE * (blocks * BLOCK)
        # The kernel's ring ends where the data area begins.
        self._off, self._size = off, self._data - off
        struct.pack_into("=HHII", self.memory, 0, abi.TCMU_MAILBOX_VERSION, flags, off, self._size)
        self._words = self.memory[: self._data].cast("I")
        self._head = self._cleaned = 0
        self._free = list(range(blocks - 1, -1, -1))
        self._commands: dict[int, _Command] = {}
        self._next_id = 1
        self.answers: dict[int, Answer] = {}
        self.broken = False
        self.kicks = 0
        # The kernel's cmdr_lock: commands are queued and answers taken by different threads.
        self._lock = threading.RLock()
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.transport = LoopbackTransport(self)

    # The initiator.

    def submit(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> int:
        """Queue a command and notify; return its id, the key of `answers` later.

        Args:
            cdb: The command descriptor block, 6 to 260 bytes.
            data_out: What the initiator sends.
            data_in: Bytes that the initiator has room for.

        Raises:
            TransportError: The ring or the data area is full.
        """
        with self._lock:
            return self._queue(cdb, data_out, len(data_out) or data_in)

    def _queue(self, cdb: bytes, data_out: bytes, length: int) -> int:
        blocks = self._take_blocks(-(-length // BLOCK))
        iovecs = self._iovecs(blocks, length)
        base = max(abi.IOV_OFFSET + len(iovecs) * _IOVEC.size, abi.CMD_ENTRY_SIZE)
        try:
            start = self._reserve(base + -(-len(cdb) // 8) * 8)
        except TransportError:
            self._free.extend(reversed(blocks))
            raise
        cmd_id = self._allocate_id()
        size = base + -(-len(cdb) // 8) * 8
        self._scatter(iovecs, data_out)
        self.memory[start : start + base] = bytes(base)
        _HEADER.pack_into(self.memory, start, size | abi.TCMU_OP_CMD, cmd_id, 0, 0)
        _REQUEST.pack_into(self.memory, start + abi.REQ_OFFSET, len(iovecs), 0, 0, start + base, 0, 0)
        for index, (offset, taken) in enumerate(iovecs):
            _IOVEC.pack_into(self.memory, start + abi.IOV_OFFSET + index * _IOVEC.size, offset, taken)
        self.memory[start + base : start + base + len(cdb)] = cdb
        self._commands[cmd_id] = _Command(blocks, length, data_in=not data_out)
        self._advance(size)
        return cmd_id

    def manage(self, tmr_type: int, cmd_ids: Sequence[int] = ()) -> None:
        """Queue a task management notification that names commands."""
        size = -(-(abi.CMD_IDS_OFFSET + 2 * len(cmd_ids)) // 8) * 8
        with self._lock:
            start = self._reserve(size)
            self.memory[start : start + size] = bytes(size)
            _HEADER.pack_into(self.memory, start, size | abi.TCMU_OP_TMR, 0, 0, 0)
            struct.pack_into("=B3xI", self.memory, start + abi.REQ_OFFSET, tmr_type, len(cmd_ids))
            struct.pack_into(f"={len(cmd_ids)}H", self.memory, start + abi.CMD_IDS_OFFSET, *cmd_ids)
            self._advance(size)

    def expire(self, cmd_id: int) -> None:
        """Give up on a command, as cmd_time_out does: its buffers stay taken until it is answered."""
        self._commands[cmd_id].expired = True

    def wait(self, cmd_id: int, seconds: float = 10) -> Answer:
        """Return the answer to a command that another thread serves.

        Raises:
            TransportError: None came in time.
        """
        poll = select.poll()
        poll.register(self.transport.answered, select.POLLIN)
        while cmd_id not in self.answers:
            if not poll.poll(seconds * 1000):
                raise TransportError(f"no answer to command {cmd_id} within {seconds} s")
            os.eventfd_read(self.transport.answered)
        return self.answers.pop(cmd_id)

    @property
    def outstanding(self) -> int:
        """Commands that are not answered yet."""
        return len(self._commands)

    def close(self) -> None:
        """Free the memory and the descriptors."""
        self.transport.close()
        self._words.release()
        self.memory.release()
        self._map.close()
        os.close(self.event)

    # The kernel's half.

    def _allocate_id(self) -> int:
        while self._next_id in self._commands:
            self._next_id = self._next_id % 0xFFFF + 1
        cmd_id = self._next_id
        self._next_id = self._next_id % 0xFFFF + 1
        return cmd_id

    def _take_blocks(self, count: int) -> list[int]:
        if count > len(self._free):
            raise TransportError("the data area is full")
        return [self._free.pop() for _ in range(count)]

    def _iovecs(self, blocks: list[int], length: int) -> list[tuple[int, int]]:
        """Return (offset, bytes) pairs; neighbouring blocks make one iovec, as in the kernel."""
        iovecs: list[tuple[int, int]] = []
        for block in blocks:
            offset, taken = self._data + block * BLOCK, min(length, BLOCK)
            length -= taken
            if iovecs and sum(iovecs[-1]) == offset:
                iovecs[-1] = (iovecs[-1][0], iovecs[-1][1] + taken)
            else:
                iovecs.append((offset, taken))
        return iovecs

    def _scatter(self, iovecs: list[tuple[int, int]], data: bytes) -> None:
        done = 0
        for offset, taken in iovecs if data else ():
            self.memory[offset : offset + taken] = data[done : done + taken]
            done += taken

    def _reserve(self, size: int) -> int:
        """Return where an entry of `size` bytes begins, after a PAD if it would not fit."""
        room = (self._cleaned - self._head - 1) % self._size
        tail = self._size - self._head
        pad = tail if size > tail else 0
        if room < size + pad:
            raise TransportError("the ring is full")
        if pad:
            _HEADER.pack_into(self.memory, self._off + self._head, pad | abi.TCMU_OP_PAD, 0, 0, 0)
            self._head = 0
        return self._off + self._head

    def _advance(self, size: int) -> None:
        self._head = (self._head + size) % self._size
        self._words[abi.CMD_HEAD_OFFSET >> 2] = self._head
        os.eventfd_write(self.event, 1)

    def consume(self) -> None:
        """Take the answers up to cmd_tail, as a write to the uio device does."""
        with self._lock:
            self._consume()

    def _consume(self) -> None:
        self.kicks += 1
        tail = self._words[abi.CMD_TAIL_OFFSET >> 2]
        while self._cleaned != tail and not self.broken:
            start = self._off + self._cleaned
            len_op, cmd_id, _, uflags = _HEADER.unpack_from(self.memory, start)
            size = len_op & ~abi.TCMU_OP_MASK
            if len_op & abi.TCMU_OP_MASK == abi.TCMU_OP_CMD:
                command = self._commands.pop(cmd_id, None)
                if command is None:
                    self.broken = True
                    raise RingCorruptError(f"cmd_id {cmd_id} not found, ring is broken")
                self._finish(cmd_id, command, start, uflags)
            self.memory[start + 8 : start + size] = _STALE * (size - 8)
            self._cleaned = (self._cleaned + size) % self._size

    def _finish(self, cmd_id: int, command: _Command, start: int, uflags: int) -> None:
        """Do what tcmu_handle_completion does."""
        status, read_len = _RESPONSE.unpack_from(self.memory, start + abi.REQ_OFFSET)
        valid = command.data_in and bool(uflags & abi.TCMU_UFLAG_READ_LEN) and read_len > 0
        taken = min(read_len, command.length) if valid else command.length
        sense = data = b""
        if uflags & abi.TCMU_UFLAG_UNKNOWN_OP:
            status = 2
        elif status == 2:
            at = start + abi.SENSE_OFFSET
            sense = bytes(self.memory[at : at + abi.TCMU_SENSE_BUFFERSIZE])
        if command.data_in and (status != 2 or valid):
            pieces = self._iovecs(command.blocks, taken)
            data = b"".join(bytes(self.memory[offset : offset + count]) for offset, count in pieces)
        self._free.extend(reversed(command.blocks))
        if not command.expired:
            self.answers[cmd_id] = Answer(status, sense, data, command.length - taken if valid else 0)


class LoopbackTransport:
    """The serving end of a `Loopback`; implements `vscsihba.transport.Transport`."""

    def __init__(self, loopback: Loopback) -> None:
        self._loopback = loopback
        self.answered = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.attach()

    def attach(self) -> None:
        """Begin to serve at cmd_tail, as a process does that has just opened the device."""
        self.ring = Ring(self._loopback.memory[:], self._kick)
        self.memory = self.ring.memory
        self.drain = self.ring.drain
        self.complete = self.ring.complete
        self.publish = self.ring.publish
        self.pending = self.ring.pending

    def _kick(self) -> None:
        self._loopback.consume()
        os.eventfd_write(self.answered, 1)

    def fileno(self) -> int:
        """Return the descriptor that is readable when commands were queued."""
        return self._loopback.event

    def acknowledge(self) -> None:
        """Take the notifications back."""
        try:
            os.eventfd_read(self._loopback.event)
        except BlockingIOError:
            return

    def take_management(self) -> list[TaskManagement]:
        """Return and forget the task management requests met."""
        return self.ring.take_management()

    def close(self) -> None:
        """Let go of the ring; twice is harmless."""
        if self.answered >= 0:
            self.ring.release()
            os.close(self.answered)
            self.answered = -1
