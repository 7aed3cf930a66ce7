"""The command ring of one TCMU device: fetch, answer, publish.

The ring's memory is shared with the kernel (drivers/target/target_core_user.c). Two
positions move over it: where the next entry is fetched, and where the next answer goes
(the oldest open slot). Answers may come in any order: the kernel consumes slots in ring
order and finds the command by the id in the slot, so the answer to X may be written into
the slot that Y came in. Whatever is needed of a command is therefore taken out of its
slot before anything else can be answered.

A process can be killed between any two stores. What its successor must know is in the
`journal`, which is written in step: before a command is handed out, before and after its
answer is written. Only the short cut leaves no trace there until the batch is published.

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
from vscsihba.tcmu.circle import SIZE_MASK, Circle
from vscsihba.tcmu.data_area import DataArea
from vscsihba.tcmu.journal import BEGUN, Journal, Response, make_journal
from vscsihba.tcmu.mailbox import read_mailbox, read_tail
from vscsihba.tcmu.management import read_management
from vscsihba.tcmu.survey import Survey, survey
from vscsihba.transport import Accept, Cut, Recovered, TaskManagement

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
_TASK_SET_FULL = 0x28
"""The SAM status of a command for which there is no room: the initiator sends it again, later."""
_RESERVE = 64
"""Units of the journal for those: an answer that touches the buffer needs a record, too."""
_GOOD = Response()
_UNKNOWN_TAIL = -1
_UFLAGS = abi.tcmu_cmd_entry_hdr.uflags.offset


class Ring:
    """One device's ring over its mapped memory.

    Args:
        memory: The whole map, format ``B``, writable.
        kick: Tells the kernel that `cmd_tail` has moved.
        journal: Where successors look; without one they go on from `cmd_tail`. One that says something
            must be read by `recover` before anything else.

    Raises:
        RingCorruptError: The mailbox is not one that this ABI describes.
        JournalDamagedError: The journal's position is damaged.
    """

    def __init__(self, memory: memoryview, kick: Callable[[], None], journal: Journal | None = None) -> None:
        self._mailbox = read_mailbox(memory)
        self._tail = read_tail(memory, self._mailbox)
        self.flags, self._start, self._end = self._mailbox.flags, self._mailbox.start, self._mailbox.end
        self._has_read_len = bool(self.flags & abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN)
        self._fetched = self._completed = self._start + self._tail
        self.memory = memory
        self._words = memory[: self._end].cast("I")
        self._circle = Circle(self._words, self._start, self._end)
        self._data = DataArea(memory, self._end)
        self._journal = journal or make_journal()
        if self._journal.is_void:
            self._journal.restart(self._completed)
        else:
            self._tail = _UNKNOWN_TAIL  # never the kernel's: nothing works before `recover`
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
                after = self._circle.step(start, len_op & SIZE_MASK, head)
                self._check_cdb(start, cdb_off, end)
                limit = self._limit(after, head)
            if iov_cnt == 1 and low <= base <= high - taken:
                views = [memory[base : base + taken]]
            else:
                views = self._data.views(memory, start, iov_cnt, cdb_off)
                taken = sum(map(len, views))
            count += 1
            if not cut(cdb_off, views, taken):
                self._fetched = after
                if self._take(cmd_id, start, memory[start:end], views):
                    accept(cmd_id + generation, bytes(memory[cdb_off:end]), views)
                if self._generation != generation:  # the ring was reset meanwhile
                    break
            elif self._completed == start or self._oldest_slot() == start:
                words[start + 8 >> 2] = 0
                self._fetched = self._completed = after
            else:
                self._fetched = after
                self._answer(cmd_id, _GOOD, [])
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

    def _take(self, cmd_id: int, start: int, entry: memoryview, views: list[memoryview]) -> bool:
        """Put a command into the journal, to go on the long road; refuse it if that is nearly full.

        What was answered in place before it counts from now on: behind the journal's position lie
        as many fetched slots as there are records.

        Raises:
            RingCorruptError: Its id is the one of another open command.
        """
        tag = cmd_id + self._generation
        if tag in self._open:
            raise RingCorruptError(f"command {cmd_id} came again before it was answered")
        journal = self._journal
        journal.move_to(self._completed)
        recorded = journal.accept(cmd_id, start, entry)
        self._open[tag] = views
        if not recorded:
            self.refuse(tag)
        elif journal.room < _RESERVE:
            self.complete(tag, _TASK_SET_FULL)
        return tag in self._open

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
        length = len_op & SIZE_MASK
        after = self._circle.step(start, length, head)
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

    def begun(self, tag: int) -> None:
        """Note that an open command is about to do what must not be done twice.

        See `vscsihba.transport.Transport.begun`.
        """
        if tag in self._open:
            self._journal.begin(tag & _ID_MASK)

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer an open command; see `vscsihba.transport.Transport.complete`."""
        if self._is_owed(tag):
            self._end_command(tag, 0, status, sense, data_in or 0)

    def refuse(self, tag: int) -> None:
        """Answer an open command with UNKNOWN_OP: the kernel's words for "user space cannot".

        The initiator is told CHECK CONDITION with NOT READY, LOGICAL UNIT COMMUNICATION FAILURE
        (target_complete_cmd), gets no data and tries again: for a command that nobody here could
        judge. An operation code that is merely not supported deserves sense data of its own.

        Raises:
            TransportError: `tag` is not open.
        """
        if self._is_owed(tag):
            self._end_command(tag, abi.TCMU_UFLAG_UNKNOWN_OP, _CHECK_CONDITION, b"", 0)

    def abandon(self, tag: int, status: int) -> int | None:
        """Answer an open command whose buffer is still being used.

        See `vscsihba.transport.Transport.abandon`. The kernel keeps the buffer, and the id, until the id is
        written to action/free_kept_buf, the ring is reset or the device closed (tcmu_release).
        """
        if not self.flags & abi.TCMU_MAILBOX_FLAG_CAP_KEEP_BUF:
            raise TransportError("the kernel cannot keep a buffer", cure="use Linux 5.15 or newer")
        if not self._is_owed(tag):
            return None
        self._end_command(tag, abi.TCMU_UFLAG_KEEP_BUF, status, b"", 0)
        return tag & _ID_MASK

    def _end_command(self, tag: int, uflags: int, status: int, sense: bytes, valid: int) -> None:
        """Answer an open command, of whose buffer the first `valid` bytes mean something."""
        self._answer(tag & _ID_MASK, Response(uflags, status, valid, sense), self._open[tag])
        del self._open[tag]

    def _bound(self, views: list[memoryview], status: int, valid: int) -> tuple[int, int]:
        """Return the flag and the read_len that keep what is behind the `valid` bytes from the initiator.

        Data pages are reused, and the kernel copies all of the buffer to an initiator that reads
        unless it is told a length, with every status but CHECK CONDITION. Whether the initiator
        reads is not in the ring: its direction need not be the one that the CDB implies. So the
        length goes with every answer, and where there is none to give, the buffer is zeroed.
        """
        if not (valid or status != _CHECK_CONDITION):
            return 0, 0
        if not self._has_read_len:
            self._data.zero(views, valid)
            return 0, 0
        if not views:
            return 0, 0
        if not valid:  # tcmu_handle_completion ignores a read_len of 0
            views[0][0] = 0
        return abi.TCMU_UFLAG_READ_LEN, valid or 1

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
        words, fetched, start = self._words, self._fetched, self._completed
        while start != fetched:
            len_op = words[start >> 2]
            if len_op & abi.TCMU_OP_MASK == abi.TCMU_OP_CMD:
                break
            start = self._circle.step(start, len_op & SIZE_MASK, fetched)
        self._completed = start
        return start

    def _answer(self, cmd_id: int, response: Response, views: list[memoryview]) -> None:
        """Write an answer into the oldest open slot and step over it; `views` is the buffer it bounds.

        It counts from when the journal's position has moved over it: before that, a successor
        writes it again from the journal, or executes anew what has no record. So nothing that it
        would need for that is touched before the answer is in the journal.
        """
        start, journal, memory = self._oldest_slot(), self._journal, self.memory
        after = self._circle.step(start, self._words[start >> 2] & SIZE_MASK, self._fetched)
        journal.answer(cmd_id, after, response)
        uflags, status, valid, sense = response
        flag, read_len = self._bound(views, status, valid)
        if status == _CHECK_CONDITION:  # always: without, the kernel takes the request's bytes for sense
            at = start + abi.SENSE_OFFSET
            memory[at : at + abi.TCMU_SENSE_BUFFERSIZE] = sense[: abi.TCMU_SENSE_BUFFERSIZE].ljust(
                abi.TCMU_SENSE_BUFFERSIZE, b"\0"
            )
        _RESPONSE.pack_into(memory, start + 4, cmd_id, 0, uflags | flag, status, read_len)
        journal.move_to(after)
        journal.forget(cmd_id)
        self._completed = after

    def publish(self) -> None:
        """Store `cmd_tail` after all answers, then kick once, if anything moved."""
        if self._was_reset():
            self.reattach()
        tail = self._oldest_slot() - self._start
        if tail == self._tail:
            return
        self._journal.move_to(self._completed)
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
        if self._tail == _UNKNOWN_TAIL:
            raise TransportError("the journal of the ring has not been read")
        return self.restart()

    def restart(self) -> tuple[int, ...]:
        """Do the same where the journal cannot be read; see `vscsihba.transport.Transport.restart`."""
        lost = tuple(self._open)
        self._lost.update(lost)
        self._open.clear()
        self._management.clear()
        self._generation += _GENERATION
        self._tail = read_tail(self.memory, self._mailbox)
        self._fetched = self._completed = self._start + self._tail
        self._journal.restart(self._completed)
        return lost

    def recover(self) -> list[Recovered]:
        """Go on where a predecessor was killed; see `vscsihba.transport.Transport.recover`."""
        recovered: list[Recovered] = []
        if self._tail == _UNKNOWN_TAIL:
            tail = read_tail(self.memory, self._mailbox)
            head = self._start + self._words[_HEAD]
            self._limit(self._start, head)
            found = survey(self.memory, self._circle, self._start + tail, head, self._journal)
            self._tail = tail
            recovered = self._adopt(found)
            self.publish()
        self._kick()  # the predecessor may have died between the store of cmd_tail and its own kick
        return recovered

    def _adopt(self, found: Survey) -> list[Recovered]:
        """Take over what is open; write the answer that was under way, if any."""
        self._completed, self._fetched = found.completed, found.fetched
        self._journal.adopt([command.record for command in found.open])
        for at in found.answered:  # whoever used the buffer has died, and nobody would free it
            self.memory[at + _UFLAGS] &= ~abi.TCMU_UFLAG_KEEP_BUF
        recovered = []
        for command in found.open:
            record, answer = command.record, command.record.answer
            if answer is None:
                self._open[record.cmd_id] = command.views
                begun = record.state == BEGUN
                recovered.append(Recovered(record.cmd_id, command.cdb, command.views, begun))
            else:
                uflags = answer.uflags & ~abi.TCMU_UFLAG_KEEP_BUF
                self._answer(record.cmd_id, answer._replace(uflags=uflags), command.views)
        return recovered

    def release(self) -> None:
        """Let go of every view of the memory, so that the map can be closed."""
        self._open.clear()
        self._words.release()
        self._data.release()
        self._journal.release()
