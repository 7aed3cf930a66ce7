"""The command ring of one TCMU device: fetch, answer, publish.

The ring's memory is shared with the kernel (drivers/target/target_core_user.c). Two
positions move over it: where the next entry is fetched, and where the next answer goes
(the oldest open slot). Answers may come in any order: the kernel consumes slots in ring
order and finds the command by the id in the slot, so the answer to X may be written into
the slot that Y came in. Whatever is needed of a command is therefore taken out of its
slot before anything else can be answered.

This module knows neither SCSI nor files; `kick` is how it tells the kernel.
"""

import struct
from collections.abc import Callable

from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.barrier import memory_barrier
from vscsihba.tcmu.data_area import DataArea
from vscsihba.transport import Accept, Cut, TaskManagement

_SIZE_MASK = 0xFFFFFFFF & ~abi.TCMU_OP_MASK

_MAILBOX = struct.Struct("=HHII")
"""version, flags, cmdr_off, cmdr_size"""
_REQUEST = struct.Struct("=HxxI12xQ16xQQ")
"""From byte 4 of an entry: cmd_id, iov_cnt, cdb_off, iov[0].iov_base, iov[0].iov_len.

A command's entry is never shorter than `abi.CMD_ENTRY_SIZE`, so iov[0] is always inside."""
_RESPONSE = struct.Struct("=HBBB3xI")
"""From byte 4 of an entry: cmd_id, kflags, uflags, scsi_status, read_len."""
_TMR = struct.Struct("=B3xI")
"""From byte 8 of an entry: tmr_type, cmd_cnt."""

_FUNCTIONS = {
    abi.TCMU_TMR_ABORT_TASK: "ABORT TASK",
    abi.TCMU_TMR_ABORT_TASK_SET: "ABORT TASK SET",
    abi.TCMU_TMR_CLEAR_ACA: "CLEAR ACA",
    abi.TCMU_TMR_CLEAR_TASK_SET: "CLEAR TASK SET",
    abi.TCMU_TMR_LUN_RESET: "LOGICAL UNIT RESET",
    abi.TCMU_TMR_TARGET_WARM_RESET: "TARGET WARM RESET",
    abi.TCMU_TMR_TARGET_COLD_RESET: "TARGET COLD RESET",
    abi.TCMU_TMR_LUN_RESET_PRO: "LOGICAL UNIT RESET",
}


class Ring:
    """One device's ring over its mapped memory.

    Args:
        memory: The whole map, format ``B``, writable.
        kick: Tells the kernel that `cmd_tail` has moved.

    Raises:
        RingCorruptError: The mailbox is not one that this ABI describes.
    """

    def __init__(self, memory: memoryview, kick: Callable[[], None]) -> None:
        version, self.flags, self._off, self._size = _MAILBOX.unpack_from(memory)
        if version != abi.TCMU_MAILBOX_VERSION:
            raise RingCorruptError(f"mailbox version is {version}, not {abi.TCMU_MAILBOX_VERSION}")
        if not self.flags & abi.TCMU_MAILBOX_FLAG_CAP_OOOC:
            raise RingCorruptError("the kernel completes in order only", cure="use Linux 4.0 or newer")
        if self._off < abi.MAILBOX_SIZE or self._off % 8 or self._off + self._size > len(memory):
            raise RingCorruptError(f"ring of {self._size} bytes at {self._off} lies outside the map")
        self.memory = memory
        self._words = memory[: self._off + self._size].cast("I")
        self._data = DataArea(memory, self._off + self._size)
        self._kick = kick
        self._has_read_len = bool(self.flags & abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN)
        self._fetched = self._completed = self._published = self._load_tail()
        self._open: dict[int, list[memoryview]] = {}
        self._management: list[TaskManagement] = []

    def _load_tail(self) -> int:
        tail = self._words[abi.CMD_TAIL_OFFSET >> 2]
        if tail >= self._size or tail % abi.TCMU_OP_ALIGN_SIZE:
            raise RingCorruptError(f"cmd_tail {tail} lies outside the ring of {self._size} bytes")
        return tail

    @property
    def open_tags(self) -> tuple[int, ...]:
        """The commands handed out on the long road and not yet completed, oldest first."""
        return tuple(self._open)

    def pending(self) -> bool:
        """Tell whether entries wait that were not fetched yet."""
        return self._words[abi.CMD_HEAD_OFFSET >> 2] != self._fetched

    def drain(self, cut: Cut, accept: Accept) -> int:
        """Fetch up to the head, answering in place what `cut` executes.

        See `vscsihba.transport.Transport.drain`. An in-place answer needs one store: the slot
        is still the command's own when nothing older is open, and the kernel has set its id
        and flags. All locals: this loop is the hot path.
        """
        words, memory, off, size = self._words, self.memory, self._off, self._size
        low, high = self._data.start, self._data.end
        unpack = _REQUEST.unpack_from
        head = words[abi.CMD_HEAD_OFFSET >> 2]
        memory_barrier()
        position = self._fetched
        count = 0
        while position != head:
            start = off + position
            len_op = words[start >> 2]
            if len_op & 7 != 1:
                position = self._skip(position, len_op)
                continue
            length = len_op - 1
            cmd_id, iov_cnt, cdb_off, base, taken = unpack(memory, start + 4)
            if iov_cnt == 1 and low <= base <= high - taken:
                views = [memory[base : base + taken]]
            else:
                views = self._data.views(start, iov_cnt)
                taken = sum(map(len, views))
            count += 1
            after = position + length
            if not position < after < size:
                after = self._next(position, length)
            if not cut(cdb_off, views, taken):
                self._fetched = after
                self._open[cmd_id] = views
                accept(cmd_id, bytes(memory[cdb_off : start + length]), views)
            elif self._completed == position:
                words[start + 8 >> 2] = 0
                self._fetched = self._completed = after
            else:
                self._fetched = after
                self._answer(cmd_id, 0, 0, 0)
            position = after
        return count

    def _next(self, position: int, length: int) -> int:
        """Return the position after an entry of `length` bytes.

        Raises:
            RingCorruptError: The length cannot be an entry's.
        """
        after = position + length
        if length <= 0 or after > self._size:
            raise RingCorruptError(f"an entry of {length} bytes stands at {position} of {self._size}")
        return 0 if after == self._size else after

    def _skip(self, position: int, len_op: int) -> int:
        """Pass over an entry that is no command, taking note of a task management request."""
        op = len_op & abi.TCMU_OP_MASK
        length = len_op & _SIZE_MASK
        if op == abi.TCMU_OP_TMR:
            self._note_management(self._off + position, length)
        elif op != abi.TCMU_OP_PAD:
            raise RingCorruptError(f"an entry at {position} has the unknown op {op}")
        self._fetched = self._next(position, length)
        return self._fetched

    def _note_management(self, start: int, length: int) -> None:
        kind, count = _TMR.unpack_from(self.memory, start + abi.REQ_OFFSET)
        if abi.CMD_IDS_OFFSET + 2 * count > length:
            raise RingCorruptError(f"a task management entry of {length} bytes names {count} commands")
        ids = struct.unpack_from(f"={count}H", self.memory, start + abi.CMD_IDS_OFFSET)
        tags = tuple(tag for tag in ids if tag in self._open)
        self._management.append(TaskManagement(_FUNCTIONS.get(kind, f"function {kind}"), tags))

    def take_management(self) -> list[TaskManagement]:
        """Return and forget the task management requests met since the last call."""
        met, self._management = self._management, []
        return met

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer an open command; see `vscsihba.transport.Transport.complete`.

        What the kernel would copy beyond `data_in` is zeroed where it cannot be told the length:
        data pages are reused, and old bytes must not reach the initiator. It ignores a read_len
        of 0 (tcmu_handle_completion), so an empty answer is zeroed in any case.
        """
        views = self._open.pop(tag, None)
        if views is None:
            raise TransportError(f"command {tag} is not open")
        uflags = read_len = 0
        if data_in is not None and status == 0:
            if data_in and self._has_read_len:
                uflags, read_len = abi.TCMU_UFLAG_READ_LEN, data_in
            else:
                self._data.zero(views, data_in)
        if sense:
            start = self._off + self._oldest_slot() + abi.SENSE_OFFSET
            self.memory[start : start + abi.TCMU_SENSE_BUFFERSIZE] = sense[: abi.TCMU_SENSE_BUFFERSIZE].ljust(
                abi.TCMU_SENSE_BUFFERSIZE, b"\0"
            )
        self._answer(tag, uflags, status, read_len)

    def _oldest_slot(self) -> int:
        """Move the completion position to the oldest open command slot and return it."""
        words = self._words
        position = self._completed
        while position != self._fetched:
            len_op = words[self._off + position >> 2]
            if len_op & abi.TCMU_OP_MASK == abi.TCMU_OP_CMD:
                break
            position = self._next(position, len_op & _SIZE_MASK)
        self._completed = position
        return position

    def _answer(self, cmd_id: int, uflags: int, status: int, read_len: int) -> None:
        """Write an answer into the oldest open slot and step over it."""
        position = self._oldest_slot()
        start = self._off + position
        _RESPONSE.pack_into(self.memory, start + 4, cmd_id, 0, uflags, status, read_len)
        self._completed = self._next(position, self._words[start >> 2] & _SIZE_MASK)

    def publish(self) -> None:
        """Store `cmd_tail` after all answers, then kick once, if anything moved."""
        tail = self._oldest_slot()
        if tail == self._published:
            return
        memory_barrier()
        self._words[abi.CMD_TAIL_OFFSET >> 2] = self._published = tail
        self._kick()

    def release(self) -> None:
        """Let go of every view of the memory, so that the map can be closed."""
        self._open.clear()
        self._words.release()
        self._data.release()
