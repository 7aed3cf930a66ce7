"""The kernel's half of a ring, over memory of this process.

Mailbox, ring and data area have the kernel's bytes, and they behave as in the kernel where a
server depends on it (drivers/target/target_core_user.c): pages are reused dirty, entries
are padded at the end of the ring, slots are reused once the tail has passed (poisoned
here, so that a late read shows), completions are matched by the id in the slot, and an
unknown id breaks the ring for good.

Does not know how the server and the initiator are woken: see `vscsihba.loopback`.
"""

import contextlib
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.tcmu import abi

BLOCK = 4096
"""Bytes of one block of the data area (data_pages_per_blk=1)."""
GOOD, CHECK_CONDITION, BUSY = 0, 2, 8
"""SAM statuses that the kernel itself distinguishes or sets."""
COMMUNICATION_FAILURE = bytes((0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 8)).ljust(
    abi.TCMU_SENSE_BUFFERSIZE, b"\0"
)
"""Sense of the target core where a CHECK CONDITION has none (TCM_LOGICAL_UNIT_COMMUNICATION_FAILURE)."""

_POISON = b"\xa5"
_HEADER = struct.Struct("=IHBB")
_REQUEST = struct.Struct("=III4xQQQ")
_IOVEC = struct.Struct("=QQ")
_RESPONSE = struct.Struct("=B3xI")
_TMR = struct.Struct("=B3xI")


@dataclass(slots=True)
class Answer:
    """The response that the initiator gets.

    Attributes:
        status: SAM status.
        sense: Sense data as delivered, 96 bytes with CHECK CONDITION, else empty.
        data: The initiator's data-in buffer, as far as the kernel filled it.
        residual: Bytes requested and not delivered.
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
    expired: bool = False
    kept: bool = False


class KernelHalf:
    """The kernel's side of one device: fills the ring and consumes completions.

    Args:
        ring_size: Bytes of the command ring; made larger to end on a page.
        blocks: Blocks of the data area, `BLOCK` bytes each.
        flags: Capabilities of the mailbox.
    """

    def __init__(self, ring_size: int, blocks: int, flags: int) -> None:
        self._off = abi.MAILBOX_SIZE
        self.data_off = -(-(self._off + ring_size) // BLOCK) * BLOCK
        self._size = self.data_off - self._off
        self._map = mmap.mmap(-1, self.data_off + blocks * BLOCK)
        self.memory = memoryview(self._map)
        self.memory[self.data_off :] = _POISON * (blocks * BLOCK)
        struct.pack_into("=HHII", self.memory, 0, abi.TCMU_MAILBOX_VERSION, flags, self._off, self._size)
        self._words = self.memory[: self.data_off].cast("I")
        self._head = self._cleaned = 0
        self._free = list(range(blocks - 1, -1, -1))
        self._commands: dict[int, _Command] = {}
        self._next_id = 1
        self.broken = False

    @property
    def outstanding(self) -> int:
        """Number of commands whose id and buffers are in use."""
        return len(self._commands)

    # Filling the ring: queue_cmd_ring and tcmu_tmr_notify.

    def queue(self, cdb: bytes, data_out: bytes, data_in: int) -> int:
        """Put a command into the ring and return its cmd_id.

        Raises:
            TransportError: The ring or the data area is full, or the ring is broken.
        """
        if self.broken:
            raise TransportError("the ring is broken")
        length = len(data_out) or data_in
        blocks = self._take_blocks(-(-length // BLOCK))
        iovecs = self._iovecs(blocks, length)
        base = max(abi.IOV_OFFSET + len(iovecs) * _IOVEC.size, abi.CMD_ENTRY_SIZE)
        size = base + -(-len(cdb) // 8) * 8
        try:
            cmd_id = self._allocate_id()
            start = self._reserve(size)
        except TransportError:
            self._give_blocks(blocks)
            raise
        self._scatter(iovecs, data_out)
        self.memory[start : start + size] = bytes(size)
        _HEADER.pack_into(self.memory, start, size | abi.TCMU_OP_CMD, cmd_id, 0, 0)
        _REQUEST.pack_into(self.memory, start + abi.REQ_OFFSET, len(iovecs), 0, 0, start + base, 0, 0)
        for index, iovec in enumerate(iovecs):
            _IOVEC.pack_into(self.memory, start + abi.IOV_OFFSET + index * _IOVEC.size, *iovec)
        self.memory[start + base : start + base + len(cdb)] = cdb
        self._commands[cmd_id] = _Command(blocks, length, data_in=not data_out)
        self._advance(size)
        return cmd_id

    def queue_management(self, tmr_type: int, cmd_ids: Sequence[int]) -> None:
        """Put a task management entry into the ring.

        Raises:
            TransportError: The ring is full.
        """
        size = -(-(abi.CMD_IDS_OFFSET + 2 * len(cmd_ids)) // 8) * 8
        start = self._reserve(size)
        self.memory[start : start + size] = bytes(size)
        _HEADER.pack_into(self.memory, start, size | abi.TCMU_OP_TMR, 0, 0, 0)
        _TMR.pack_into(self.memory, start + abi.REQ_OFFSET, tmr_type, len(cmd_ids))
        struct.pack_into(f"={len(cmd_ids)}H", self.memory, start + abi.CMD_IDS_OFFSET, *cmd_ids)
        self._advance(size)

    def _allocate_id(self) -> int:
        if len(self._commands) == 0xFFFF:
            raise TransportError("every cmd_id is taken")
        while self._next_id in self._commands:
            self._next_id = self._next_id % 0xFFFF + 1
        cmd_id = self._next_id
        self._next_id = self._next_id % 0xFFFF + 1
        return cmd_id

    def _take_blocks(self, count: int) -> list[int]:
        if count > len(self._free):
            raise TransportError("the data area is full")
        return [self._free.pop() for _ in range(count)]

    def _give_blocks(self, blocks: list[int]) -> None:
        self._free.extend(reversed(blocks))

    def _iovecs(self, blocks: list[int], length: int) -> list[tuple[int, int]]:
        """Return (offset, bytes) pairs; neighbouring blocks make one iovec, as in the kernel."""
        iovecs: list[tuple[int, int]] = []
        for block in blocks:
            offset, taken = self.data_off + block * BLOCK, min(length, BLOCK)
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
        """Return the position of a new entry of `size` bytes, behind a PAD if it would not fit."""
        room = (self._cleaned - self._head - 1) % self._size
        left = self._size - self._head
        pad = left if size > left else 0
        if room < size + pad:
            raise TransportError("the ring is full")
        if pad:
            _HEADER.pack_into(self.memory, self._off + self._head, pad | abi.TCMU_OP_PAD, 0, 0, 0)
            self._head = 0
        return self._off + self._head

    def _advance(self, size: int) -> None:
        self._head = (self._head + size) % self._size
        self._words[abi.CMD_HEAD_OFFSET >> 2] = self._head

    # Consuming completions: tcmu_handle_completions.

    def consume(self) -> dict[int, Answer]:
        """Consume the completions up to cmd_tail, as a write to the uio device does.

        Returns:
            The responses by cmd_id.

        Raises:
            RingCorruptError: A completion has an id that is not outstanding: the ring is broken.
        """
        answers: dict[int, Answer] = {}
        tail = self._words[abi.CMD_TAIL_OFFSET >> 2]
        while self._cleaned != tail and not self.broken:
            start = self._off + self._cleaned
            len_op, cmd_id, _, uflags = _HEADER.unpack_from(self.memory, start)
            size = len_op & ~abi.TCMU_OP_MASK
            if len_op & abi.TCMU_OP_MASK == abi.TCMU_OP_CMD:
                command = self._find_completed(cmd_id)
                if not command.expired:
                    answers[cmd_id] = self._finish(command, start, uflags)
                command.expired = False
                command.kept = bool(uflags & abi.TCMU_UFLAG_KEEP_BUF)
                if not command.kept:
                    self._free_command(cmd_id)
            self.memory[start : start + size] = _POISON * size
            self._cleaned = (self._cleaned + size) % self._size
        return answers

    def _find_completed(self, cmd_id: int) -> _Command:
        command = self._commands.get(cmd_id)
        if command is None or command.kept:
            self.broken = True
            reason = "not found" if command is None else "already completed with KEEP_BUF"
            raise RingCorruptError(f"cmd_id {cmd_id} {reason}, ring is broken")
        return command

    def _free_command(self, cmd_id: int) -> None:
        self._give_blocks(self._commands.pop(cmd_id).blocks)

    def free_kept_buf(self, cmd_id: int) -> None:
        """Free a buffer that was kept with KEEP_BUF, as action/free_kept_buf does.

        Raises:
            TransportError: The command is unknown, or was not completed with KEEP_BUF (the kernel: EINVAL).
        """
        command = self._commands.get(cmd_id)
        if command is None or not command.kept:
            raise TransportError(f"cmd_id {cmd_id} was not completed with KEEP_BUF")
        self._free_command(cmd_id)

    def release(self) -> None:
        """Free all kept buffers after the server has closed the device, as tcmu_release does."""
        for cmd_id in [cmd_id for cmd_id, command in self._commands.items() if command.kept]:
            self._free_command(cmd_id)

    def _finish(self, command: _Command, start: int, uflags: int) -> Answer:
        """Return the response of a completed command, as tcmu_handle_completion makes it."""
        if uflags & abi.TCMU_UFLAG_UNKNOWN_OP:
            return Answer(CHECK_CONDITION, COMMUNICATION_FAILURE, b"", 0)
        status, read_len = _RESPONSE.unpack_from(self.memory, start + abi.REQ_OFFSET)
        valid = command.data_in and bool(uflags & abi.TCMU_UFLAG_READ_LEN) and read_len > 0
        taken = min(read_len, command.length) if valid else command.length
        sense = data = b""
        if status == CHECK_CONDITION:
            at = start + abi.SENSE_OFFSET
            sense = bytes(self.memory[at : at + abi.TCMU_SENSE_BUFFERSIZE])
        if command.data_in and (status != CHECK_CONDITION or valid):
            pieces = self._iovecs(command.blocks, taken)
            data = b"".join(bytes(self.memory[offset : offset + count]) for offset, count in pieces if count)
        counted = valid and status in (GOOD, CHECK_CONDITION)
        return Answer(status, sense, data, command.length - taken if counted else 0)

    def expire(self, cmd_id: int) -> Answer:
        """Fail a command as cmd_time_out does: its id and buffers stay in use until it is completed."""
        self._commands[cmd_id].expired = True
        return Answer(CHECK_CONDITION, COMMUNICATION_FAILURE, b"", 0)

    def reset(self) -> dict[int, Answer]:
        """Complete everything with BUSY and empty the ring, as action/reset_ring does."""
        answers = {
            cmd_id: Answer(BUSY, b"", b"", 0)
            for cmd_id, command in self._commands.items()
            if not (command.expired or command.kept)
        }
        for command in self._commands.values():
            self._give_blocks(command.blocks)
        self._commands.clear()
        self._head = self._cleaned = 0
        self._words[abi.CMD_TAIL_OFFSET >> 2] = 0
        self._words[abi.CMD_HEAD_OFFSET >> 2] = 0
        self.broken = False
        return answers

    def close(self) -> None:
        """Free the memory; a view that is still in use keeps it."""
        self._words.release()
        self.memory.release()
        with contextlib.suppress(BufferError):
            self._map.close()
