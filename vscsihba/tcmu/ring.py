"""The command ring of one TCMU device: entries are fetched from it, answers go back.

The ring's memory is shared with the kernel (drivers/target/target_core_user.c). An answer
may be written over the slot of another command that is still open, so whatever is needed of a
command is taken out of its slot before anything else can be answered.

A process can be killed between any two stores. What its successor must know is in the
`journal`, which is written in step: before a command is handed out, before and after its
answer is written. Only the short cut leaves no trace there until the batch is published.

Bidirectional commands (iov_bidi_cnt) are not looked at: tcm_loop submits none.

This module knows neither SCSI nor files; `kick` is how it tells the kernel.
"""

import struct
from collections.abc import Callable

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi
from vscsihba.tcmu.answers import Answers
from vscsihba.tcmu.barrier import memory_barrier
from vscsihba.tcmu.circle import SIZE_MASK, Circle
from vscsihba.tcmu.data_area import DataArea
from vscsihba.tcmu.journal import Journal, make_journal
from vscsihba.tcmu.mailbox import read_mailbox, read_tail
from vscsihba.tcmu.management import read_management
from vscsihba.tcmu.open_commands import OpenCommands
from vscsihba.tcmu.positions import UNKNOWN, Positions
from vscsihba.tcmu.record import BEGUN
from vscsihba.tcmu.response import Response, ResponseWriter
from vscsihba.tcmu.survey import Survey, survey
from vscsihba.transport import ALL, Accept, FastPath, Recovered

_REQUEST = struct.Struct("=HxxI12xQ16xQQ")
"""From byte 4 of an entry: cmd_id, iov_cnt, cdb_off, iov[0].iov_base, iov[0].iov_len.

A command's entry is never shorter than `abi.CMD_ENTRY_SIZE`, so iov[0] is always inside."""

_TASK_SET_FULL = 0x28
"""The SAM status of a command for which there is no room: the initiator sends it again, later."""
_RESERVE = 64
"""Units of the journal for those: an answer that touches the buffer needs a record, too."""
_GOOD = Response()


class Ring:
    """One device's ring over its mapped memory.

    What is answered and how is the business of `Answers`, whose methods are the ring's.

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
        self._mailbox = mailbox = read_mailbox(memory)
        tail = read_tail(memory, mailbox)
        self.flags = mailbox.flags
        self.memory = memory
        self._words = memory[: mailbox.end].cast("I")
        self._circle = Circle(self._words, mailbox.start, mailbox.end)
        self._data = DataArea(memory, mailbox.end)
        self._positions = Positions(self._words, self._circle)
        self._commands = OpenCommands()
        self._journal = journal or make_journal()
        if self._journal.is_void:
            self._positions.begin_at(tail)
            self._journal.restart(self._positions.completed)
        self._kick = kick
        self._writer = ResponseWriter(memory, self._data, mailbox.flags)
        self._answers = answers = Answers(
            memory,
            mailbox,
            positions=self._positions,
            commands=self._commands,
            journal=self._journal,
            writer=self._writer,
            kick=kick,
        )
        self.begun, self.complete = answers.begun, answers.complete
        self.refuse, self.complete_keep_buf = answers.refuse, answers.complete_keep_buf
        self.publish, self.reattach, self.restart = answers.publish, answers.reattach, answers.restart
        self.pending = self._positions.pending
        self.take_management = self._commands.take_management

    @property
    def open_tags(self) -> tuple[int, ...]:
        """The commands handed out on the long road and not yet completed, oldest first."""
        return tuple(self._commands.views)

    def drain(self, cut: FastPath, accept: Accept, most: int = ALL) -> int:
        """Fetch up to the head, answering in place what `cut` executes.

        See `vscsihba.transport.Transport.drain`. An in-place answer needs one store: the slot
        is still the command's own when nothing older is open (`level`), and the kernel has set its
        id and flags. All locals, the positions too as long as they are the same: this loop is the hot path.
        """
        if self._positions.was_reset():
            self.reattach()
        words, memory, positions = self._words, self.memory, self._positions
        low, high, unpack = self._data.start, self._data.end, _REQUEST.unpack_from
        head, start = positions.head(), positions.fetched
        memory_barrier()
        limit = self._limit(start, head)
        level = positions.oldest_slot() == start
        left = most
        try:
            while start != head and left:
                len_op = words[start >> 2]
                if len_op & 7 != 1:
                    start, head = self._skip(start, len_op, head)
                    limit = self._limit(start, head)
                    continue
                end = after = start + len_op - 1
                cmd_id, iov_cnt, cdb_off, base, taken = unpack(memory, start + 4)
                if end >= limit or not start + 112 <= cdb_off < end:  # 112: abi.CMD_ENTRY_SIZE
                    after, limit = self._look_closely(start, end, cdb_off, head)
                if iov_cnt == 1 and low <= base <= high - taken:
                    views = [memory[base : base + taken]]
                else:
                    views = self._data.views(memory, start, iov_cnt, cdb_off)
                    taken = sum(map(len, views))
                left -= 1
                if not cut(cdb_off, views, taken):
                    place = start, cdb_off, end
                    positions.completed, level = start if level else positions.completed, False
                    positions.fetched = start = after
                    goes_on = self._hand_out(accept, cmd_id, place, views)
                    start = positions.fetched
                    head = head if goes_on else start
                    level = positions.oldest_slot() == start
                elif level:
                    words[start + 8 >> 2] = 0
                    start = after
                else:
                    positions.fetched = start = after
                    self._answers.write(cmd_id, _GOOD, [])
        finally:
            positions.fetched = start
            if level:
                positions.completed = start
        return most - left

    def _limit(self, start: int, head: int) -> int:
        """Return the first byte that a command from `start` on may not end at without a closer look.

        Raises:
            RingCorruptError: `head` lies outside the ring.
        """
        if head >= self._circle.end:
            raise RingCorruptError(f"cmd_head {head - self._circle.start} leaves the ring")
        return self._circle.end if head < start else head + 1

    def _look_closely(self, start: int, end: int, cdb_off: int, head: int) -> tuple[int, int]:
        """Check a command that ends where the ring or the walk does; return what follows and its `_limit`.

        Raises:
            RingCorruptError: It leaves the ring or passes the head, or its CDB lies outside of it.
        """
        after = self._circle.step(start, end - start, head)
        if not start + abi.CMD_ENTRY_SIZE <= cdb_off < end:
            raise RingCorruptError(f"the CDB of an entry at {start}, up to {end}, is said to be at {cdb_off}")
        return after, self._limit(after, head)

    def _hand_out(
        self, accept: Accept, cmd_id: int, place: tuple[int, int, int], views: list[memoryview]
    ) -> bool:
        """Let a command take the long road; return False if the ring was reset meanwhile."""
        start, cdb_off, end = place
        commands, memory = self._commands, self.memory
        generation = commands.generation
        if self._take(cmd_id, start, memory[start:end], views):
            accept(cmd_id + generation, bytes(memory[cdb_off:end]), views)
        return commands.generation == generation

    def _take(self, cmd_id: int, start: int, entry: memoryview, views: list[memoryview]) -> bool:
        """Put a command into the journal, to go on the long road; refuse it if that is nearly full.

        What was answered in place before it counts from now on: behind the journal's position lie
        as many fetched slots as there are records.

        Raises:
            RingCorruptError: Its id is the one of another open command.
        """
        journal, commands = self._journal, self._commands
        tag = commands.admit(cmd_id, views)
        journal.move_to(self._positions.completed)
        recorded = journal.accept(cmd_id, start, entry)
        if not recorded:
            self.refuse(tag)
        elif journal.room < _RESERVE:
            self.complete(tag, _TASK_SET_FULL)
        return tag in commands.views

    def _skip(self, start: int, len_op: int, head: int) -> tuple[int, int]:
        """Pass over an entry that is no command; return the next one and where to stop fetching.

        A task management request is noted and stops it at once: it is to be acted on before what
        came after it.
        """
        op = len_op & abi.TCMU_OP_MASK
        length = len_op & SIZE_MASK
        after = self._circle.step(start, length, head)
        if op == abi.TCMU_OP_TMR:
            self._commands.end_by(*read_management(self.memory, start, length))
            head = after
        elif op != abi.TCMU_OP_PAD:
            raise RingCorruptError(f"an entry at {start} has the unknown op {op}")
        self._positions.fetched = after
        return after, head

    def recover(self) -> list[Recovered]:
        """Go on where a predecessor was killed; see `vscsihba.transport.Transport.recover`."""
        recovered: list[Recovered] = []
        if self._positions.tail == UNKNOWN:
            tail, start = read_tail(self.memory, self._mailbox), self._circle.start
            head = self._positions.head()
            self._limit(start, head)
            found = survey(self.memory, self._circle, start + tail, head, self._journal)
            self._positions.tail = tail
            recovered = self._adopt(found)
            self.publish()
        self._kick()  # the predecessor may have died between the store of cmd_tail and its own kick
        return recovered

    def _adopt(self, found: Survey) -> list[Recovered]:
        """Take over what is open; write the answer that was under way, if any."""
        self._positions.completed, self._positions.fetched = found.completed, found.fetched
        self._journal.adopt([command.record for command in found.open])
        for slot in found.answered:
            self._writer.let_go(slot)
        recovered = []
        for command in found.open:
            record, answer = command.record, command.record.answer
            if answer is None:
                tag = self._commands.admit(record.cmd_id, command.views)
                recovered.append(Recovered(tag, command.cdb, command.views, record.state == BEGUN))
            else:
                uflags = answer.uflags & ~abi.TCMU_UFLAG_KEEP_BUF
                self._answers.write(record.cmd_id, answer._replace(uflags=uflags), command.views)
        return recovered

    def release(self) -> None:
        """Let go of every view of the memory, so that the map can be closed."""
        self._commands.views.clear()
        self._words.release()
        self._data.release()
        self._journal.release()
