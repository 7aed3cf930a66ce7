"""The command ring of one TCMU device: fetch, answer, publish.

The ring's memory is shared with the kernel (drivers/target/target_core_user.c). Two
positions move over it: where the next entry is fetched, and where the next answer goes
(the oldest open slot). Answers may come in any order: the kernel consumes slots in ring
order and finds the command by the id in the slot, so the answer to X may be written into
the slot that Y came in. Whatever is needed of a command is therefore taken out of its
slot before anything else can be answered.

Positions are kept as bytes from the start of the map; only `cmd_head` and `cmd_tail`
count from the start of the ring. Bidirectional commands (iov_bidi_cnt) are not looked
at: tcm_loop submits none.

This module knows neither SCSI nor files; `kick` is how it tells the kernel.
"""

import struct
from collections.abc import Callable

from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.barrier import memory_barrier
from vscsihba.tcmu.data_area import DataArea
from vscsihba.tcmu.mailbox import read_mailbox, read_tail
from vscsihba.tcmu.management import read_management
from vscsihba.transport import Accept, Cut, TaskManagement

_SIZE_MASK = 0xFFFFFFFF & ~abi.TCMU_OP_MASK
_HEAD = abi.CMD_HEAD_OFFSET >> 2
_TAIL = abi.CMD_TAIL_OFFSET >> 2
_ID_MASK = 0xFFFF
_GENERATION = _ID_MASK + 1
"""A tag counts the ring's resets above the cmd_id: one from before is never taken for a new one."""

_REQUEST = struct.Struct("=HxxI12xQ16xQQ")
"""From byte 4 of an entry: cmd_id, iov_cnt, cdb_off, iov[0].iov_base, iov[0].iov_len.

A command's entry is never shorter than `abi.CMD_ENTRY_SIZE`, so iov[0] is always inside."""
_RESPONSE = struct.Struct("=HBBB3xI")
"""From byte 4 of an entry: cmd_id, kflags, uflags, scsi_status, read_len."""

_CHECK_CONDITION = 2
"""The one SAM status that the kernel treats apart: it copies sense, and data only with READ_LEN."""


class Ring:
    """One device's ring over its mapped memory.

    Args:
        memory: The whole map, format ``B``, writable.
        kick: Tells the kernel that `cmd_tail` has moved.

    Raises:
        RingCorruptError: The mailbox is not one that this ABI describes.
    """

    def __init__(self, memory: memoryview, kick: Callable[[], None]) -> None:
        self._mailbox = read_mailbox(memory)
        self._tail = read_tail(memory, self._mailbox)
        self.flags, self._start, self._end = self._mailbox.flags, self._mailbox.start, self._mailbox.end
        self._has_read_len = bool(self.flags & abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN)
        self._fetched = self._completed = self._start + self._tail
        self.memory = memory
        self._words = memory[: self._end].cast("I")
        self._data = DataArea(memory, self._end)
        self._kick = kick
        self._open: dict[int, list[memoryview]] = {}
        self._lost: set[int] = set()
        self._generation = 0
        self._management: list[TaskManagement] = []

    @property
    def open_tags(self) -> tuple[int, ...]:
        """The commands handed out on the long road and not yet completed, oldest first."""
        return tuple(self._open)

    def pending(self) -> bool:
        """Tell whether entries wait that were not fetched yet."""
        return self._start + self._words[_HEAD] != self._fetched

    def drain(self, cut: Cut, accept: Accept) -> int:
        """Fetch up to the head, answering in place what `cut` executes.

        See `vscsihba.transport.Transport.drain`. An in-place answer needs one store: the slot
        is still the command's own when nothing older is open, and the kernel has set its id
        and flags. All locals: this loop is the hot path.
        """
        words, memory, ring = self._words, self.memory, self._start
        if words[_TAIL] != self._tail or (not self._tail and self._was_reset()):
            self.reattach()
        low, high = self._data.start, self._data.end
        unpack, generation = _REQUEST.unpack_from, self._generation
        head = ring + words[_HEAD]
        memory_barrier()
        start = self._fetched
        limit = self._limit(start, head) if head < start or head >= low else head + 1
        count = 0
        while start != head:
            len_op = words[start >> 2]
            if len_op & 7 != 1:
                start, head = self._skip(start, len_op, head)
                limit = self._limit(start, head)
                continue
            end = after = start + len_op - 1
            cmd_id, iov_cnt, cdb_off, base, taken = unpack(memory, start + 4)
            if end >= limit or not start + 112 <= cdb_off < end:  # 112: abi.CMD_ENTRY_SIZE
                after = self._step(start, len_op & _SIZE_MASK, head)
                self._check_cdb(start, cdb_off, end)
                limit = self._limit(after, head)
            if iov_cnt == 1 and low <= base <= high - taken:
                views = [memory[base : base + taken]]
            else:
                views = self._data.views(start, iov_cnt, cdb_off)
                taken = sum(map(len, views))
            count += 1
            if not cut(cdb_off, views, taken):
                self._fetched = after
                tag = cmd_id + generation
                if tag in self._open:
                    raise RingCorruptError(f"command {cmd_id} came again before it was answered")
                self._open[tag] = views
                accept(tag, bytes(memory[cdb_off:end]), views)
                if self._generation != generation:  # the ring was reset meanwhile
                    break
            elif self._completed == start:
                words[start + 8 >> 2] = 0
                self._fetched = self._completed = after
            else:
                self._fetched = after
                self._answer(cmd_id, 0, 0, 0)
            start = after
        return count

    def _limit(self, start: int, head: int) -> int:
        """Return the first byte that a command from `start` on may not end at without a closer look.

        Raises:
            RingCorruptError: `head` lies outside the ring.
        """
        if head >= self._end:
            raise RingCorruptError(f"cmd_head {head - self._start} leaves the ring")
        return self._end if head < start else head + 1

    def _step(self, start: int, length: int, stop: int) -> int:
        """Return the position after an entry of `length` bytes, in a run of entries that ends at `stop`.

        Raises:
            RingCorruptError: The length cannot be an entry's.
        """
        after = start + length
        if not length or after > self._end or start < stop < after:
            raise RingCorruptError(f"an entry of {length} bytes at {start} runs beyond {stop} or {self._end}")
        return self._start if after == self._end else after

    @staticmethod
    def _check_cdb(start: int, cdb_off: int, end: int) -> None:
        if not start + abi.CMD_ENTRY_SIZE <= cdb_off < end:
            raise RingCorruptError(f"the CDB of an entry at {start}, up to {end}, is said to be at {cdb_off}")

    def _skip(self, start: int, len_op: int, head: int) -> tuple[int, int]:
        """Pass over an entry that is no command; return the next one and where to stop fetching.

        A task management request is noted and stops it at once: it is to be acted on before what
        came after it.
        """
        op = len_op & abi.TCMU_OP_MASK
        length = len_op & _SIZE_MASK
        after = self._step(start, length, head)
        if op == abi.TCMU_OP_TMR:
            function, ids = read_management(self.memory, start, length)
            tags = tuple(cmd_id + self._generation for cmd_id in ids)
            self._management.append(TaskManagement(function, tuple(tag for tag in tags if tag in self._open)))
            head = after
        elif op != abi.TCMU_OP_PAD:
            raise RingCorruptError(f"an entry at {start} has the unknown op {op}")
        self._fetched = after
        return after, head

    def take_management(self) -> list[TaskManagement]:
        """Return and forget the task management requests met since the last call."""
        met, self._management = self._management, []
        return met

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer an open command; see `vscsihba.transport.Transport.complete`.

        Data pages are reused, and the kernel copies all of the buffer to an initiator that reads
        unless it is told a length, with every status but CHECK CONDITION. Whether the initiator
        reads is not in the ring: its direction need not be the one that the CDB implies. So the
        length goes with every answer, and where there is none to give, the buffer is zeroed.
        """
        if not self._is_owed(tag):
            return
        uflags = read_len = 0
        if data_in or status != _CHECK_CONDITION:
            views, valid = self._open[tag], data_in or 0
            if not self._has_read_len:
                self._data.zero(views, valid)
            elif views:
                uflags = abi.TCMU_UFLAG_READ_LEN
                if not valid:  # tcmu_handle_completion ignores a read_len of 0
                    views[0][0] = 0
                read_len = valid or 1
        if status == _CHECK_CONDITION:  # always: without, the kernel takes the request's bytes for sense
            at = self._oldest_slot() + abi.SENSE_OFFSET
            self.memory[at : at + abi.TCMU_SENSE_BUFFERSIZE] = sense[: abi.TCMU_SENSE_BUFFERSIZE].ljust(
                abi.TCMU_SENSE_BUFFERSIZE, b"\0"
            )
        self._answer(tag & _ID_MASK, uflags, status, read_len)
        del self._open[tag]

    def refuse(self, tag: int) -> None:
        """Answer an open command with UNKNOWN_OP: the kernel's words for "user space cannot".

        The initiator is told CHECK CONDITION with NOT READY, LOGICAL UNIT COMMUNICATION FAILURE
        (target_complete_cmd), gets no data and tries again: for a command that nobody here could
        judge. An operation code that is merely not supported deserves sense data of its own.

        Raises:
            TransportError: `tag` is not open.
        """
        if self._is_owed(tag):
            self._answer(tag & _ID_MASK, abi.TCMU_UFLAG_UNKNOWN_OP, _CHECK_CONDITION, 0)
            del self._open[tag]

    def _is_owed(self, tag: int) -> bool:
        """Tell whether the kernel waits for the answer to `tag`; it does not if it has reset the ring."""
        if tag in self._open and self._was_reset():
            self.reattach()
        if tag in self._lost:
            self._lost.remove(tag)
            return False
        if tag not in self._open:
            raise TransportError(f"command {tag} is not open")
        return True

    def _oldest_slot(self) -> int:
        """Move the completion position to the oldest open command slot and return it."""
        words, fetched = self._words, self._fetched
        start = self._completed
        while start != fetched:
            len_op = words[start >> 2]
            if len_op & abi.TCMU_OP_MASK == abi.TCMU_OP_CMD:
                break
            start = self._step(start, len_op & _SIZE_MASK, fetched)
        self._completed = start
        return start

    def _answer(self, cmd_id: int, uflags: int, status: int, read_len: int) -> None:
        """Write an answer into the oldest open slot and step over it."""
        start = self._oldest_slot()
        _RESPONSE.pack_into(self.memory, start + 4, cmd_id, 0, uflags, status, read_len)
        self._completed = self._step(start, self._words[start >> 2] & _SIZE_MASK, self._fetched)

    def publish(self) -> None:
        """Store `cmd_tail` after all answers, then kick once, if anything moved."""
        if self._was_reset():
            self.reattach()
        tail = self._oldest_slot() - self._start
        if tail == self._tail:
            return
        memory_barrier()
        self._words[_TAIL] = self._tail = tail
        self._kick()

    def _was_reset(self) -> bool:
        """Tell whether the kernel has emptied the ring (tcmu_reset_ring: head = tail = 0).

        Only we move the tail otherwise, and while it is 0 the head never goes back. Not seen: a
        reset with the tail at 0 after which the head has already passed what was fetched before.
        """
        words = self._words
        tail = words[_TAIL]
        return tail != self._tail or (not tail and self._start + words[_HEAD] < self._fetched)

    def reattach(self) -> tuple[int, ...]:
        """Begin anew at `cmd_tail` after action/reset_ring, which answers all that is pending with BUSY.

        The ring does this by itself where it notices the reset. Returns the tags of the commands
        that are lost: to complete one is then allowed and does nothing, since nobody waits for it.
        Their buffers may belong to other commands already and must not be touched: whoever resets a
        ring that is being served does so with action/block_dev set, and lets running transfers end.
        """
        lost = tuple(self._open)
        self._lost.update(lost)
        self._open.clear()
        self._management.clear()
        self._generation += _GENERATION
        self._tail = read_tail(self.memory, self._mailbox)
        self._fetched = self._completed = self._start + self._tail
        return lost

    def release(self) -> None:
        """Let go of every view of the memory, so that the map can be closed."""
        self._open.clear()
        self._words.release()
        self._data.release()
