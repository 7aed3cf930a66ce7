"""The command ring of one TCMU device: entries are fetched from it, completions go back.

The ring's memory is shared with the kernel (drivers/target/target_core_user.c). A completion
may be written over the slot of another command that is still open, so the CDB and the iovecs of a
command are taken out of its slot before anything else can be completed.

A process can be killed between any two stores. The `journal` holds the state for its successor, and is
written in step: before a command is handed out, before and after its completion is written. Only the
fast path leaves no trace there until the batch is published.

Bidirectional commands (iov_bidi_cnt) are not supported: tcm_loop submits none.

This module knows neither SCSI nor files; `kick` notifies the kernel.
"""

import struct
from collections.abc import Callable

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi
from vscsihba.tcmu.barrier import memory_barrier
from vscsihba.tcmu.completions import Completion, Completions
from vscsihba.tcmu.data_area import DataArea
from vscsihba.tcmu.journal import Journal, make_journal
from vscsihba.tcmu.mailbox import read_mailbox, read_tail
from vscsihba.tcmu.management import read_management
from vscsihba.tcmu.open_commands import OpenCommands
from vscsihba.tcmu.positions import HEAD, SIZE_MASK, TAIL, UNKNOWN, Positions
from vscsihba.tcmu.record import BEGUN
from vscsihba.tcmu.recovery_scan import RecoveryScan, scan
from vscsihba.transport import ALL, Accept, FastPath, Recovered

_REQUEST = struct.Struct("=HxxI12xQ16xQQ")
"""From byte 4 of an entry: cmd_id, iov_cnt, cdb_off, iov[0].iov_base, iov[0].iov_len.

A command's entry is never shorter than `abi.CMD_ENTRY_SIZE`, so iov[0] is always inside."""

_TASK_SET_FULL = 0x28
"""SAM status of a command for which there is no room: the initiator sends it again, later."""
_RESERVE = 64
"""Units of the journal for those: a completion that touches the buffer needs a record, too."""
_GOOD = Completion()


class Ring:
    """One device's ring over its mapped memory.

    The methods that complete commands are those of `Completions`.

    Args:
        memory: The whole map, format ``B``, writable.
        kick: Tells the kernel that `cmd_tail` has moved.
        journal: The record for a successor; without one, a successor goes on from `cmd_tail`. If it holds
            anything, call `recover` before anything else.

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
        self._data = DataArea(memory, mailbox.end)
        self._positions = Positions(self._words, mailbox.start, mailbox.end)
        self._commands = OpenCommands()
        self._journal = journal or make_journal()
        if self._journal.is_void:
            self._positions.begin_at(tail)
            self._journal.restart(self._positions.completed)
        self._kick = kick
        self._completions = completions = Completions(
            memory,
            mailbox,
            data=self._data,
            positions=self._positions,
            commands=self._commands,
            journal=self._journal,
            kick=kick,
        )
        self.begun, self.complete = completions.begun, completions.complete
        self.complete_good = completions.complete_good
        self.refuse, self.complete_keep_buf = completions.refuse, completions.complete_keep_buf
        self.publish, self.reattach = completions.publish, completions.reattach
        self.restart = completions.restart
        self.pending = self._positions.pending
        self.take_management = self._commands.take_management

    @property
    def open_tags(self) -> tuple[int, ...]:
        """The commands handed out on the slow path and not yet completed, oldest first."""
        return tuple(self._commands.views)

    def drain(self, fast_path: FastPath | None, accept: Accept, most: int = ALL) -> int:
        """Fetch up to the head, completing in place the commands that `fast_path` executes.

        See `vscsihba.transport.Transport.drain`. An in-place completion needs one store: the slot
        is still the command's own when nothing older is open (`level`), and the kernel has set its
        id and flags. Everything is a local, the positions too while both are the same: this loop is hot.
        """
        words, memory, positions = self._words, self.memory, self._positions
        tail = words[TAIL]
        if (tail != positions.tail or not tail) and positions.was_reset():
            self.reattach()
        low, high, unpack = self._data.start, self._data.end, _REQUEST.unpack_from
        head, start = positions.start + words[HEAD], positions.fetched
        if memory_barrier is not None:
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
                    after, limit = self._check_end(start, end, cdb_off, head)
                if iov_cnt == 1 and low <= base <= high - taken:
                    views = [memory[base : base + taken]]
                else:
                    views = self._data.views(memory, start, iov_cnt, cdb_off)
                    taken = sum(map(len, views))
                left -= 1
                if fast_path is None or not fast_path(cdb_off, views, taken, cmd_id):
                    place = start, cdb_off, end
                    positions.completed, level = start if level else positions.completed, False
                    positions.fetched = start = after
                    goes_on = self._hand_out(accept, cmd_id, place, views)
                    start = positions.fetched
                    head = head if goes_on else start
                    level = positions.oldest_slot() == start
                elif level:
                    words[(start >> 2) + 2] = 0
                    start = after
                else:
                    positions.fetched = start = after
                    self._completions.write(cmd_id, _GOOD, [])
        finally:
            positions.fetched = start
            if level:
                positions.completed = start
        return most - left

    def _limit(self, start: int, head: int) -> int:
        """Return the first byte at which a command from `start` on may not end unchecked.

        Raises:
            RingCorruptError: `head` lies outside the ring.
        """
        if head >= self._positions.end:
            raise RingCorruptError(f"cmd_head {head - self._positions.start} leaves the ring")
        return self._positions.end if head < start else head + 1

    def _check_end(self, start: int, end: int, cdb_off: int, head: int) -> tuple[int, int]:
        """Check a command at the end of the ring or run; return the position after it and its `_limit`.

        Raises:
            RingCorruptError: It leaves the ring or passes the head, or its CDB lies outside of it.
        """
        after = self._positions.step(start, end - start, head)
        if not start + abi.CMD_ENTRY_SIZE <= cdb_off < end:
            raise RingCorruptError(f"the CDB of an entry at {start}, up to {end}, is said to be at {cdb_off}")
        return after, self._limit(after, head)

    def _hand_out(
        self, accept: Accept, cmd_id: int, place: tuple[int, int, int], views: list[memoryview]
    ) -> bool:
        """Record a command in the journal and hand it to the slow path; refuse it if that has little room.

        In-place completions before it count from now on: behind the journal's position lie
        as many fetched slots as there are records.

        Returns:
            False if the ring was reset meanwhile.

        Raises:
            RingCorruptError: Its id is the one of another open command.
        """
        start, cdb_off, end = place
        journal, commands, memory = self._journal, self._commands, self.memory
        generation = commands.generation
        tag = commands.admit(cmd_id, views)
        journal.move_to(self._positions.completed)
        if not journal.accept(cmd_id, start, memory[start:end]):
            self.refuse(tag)
        elif len(journal.free) < _RESERVE:
            self.complete(tag, _TASK_SET_FULL)
        else:
            accept(tag, memory[cdb_off:end].tobytes(), views)
        return commands.generation == generation

    def _skip(self, start: int, len_op: int, head: int) -> tuple[int, int]:
        """Step over an entry that is no command; return the next one and the end of this fetch.

        A task management request ends the fetch at once: it is to be acted on before the entries behind it.
        """
        op = len_op & abi.TCMU_OP_MASK
        length = len_op & SIZE_MASK
        after = self._positions.step(start, length, head)
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
        positions = self._positions
        if positions.tail == UNKNOWN:
            tail, head = read_tail(self.memory, self._mailbox), positions.head()
            self._limit(positions.start, head)
            scanned = scan(self.memory, positions, positions.start + tail, head, self._journal)
            positions.tail = tail
            recovered = self._adopt(scanned)
            self.publish()
        self._kick()  # the predecessor may have died between the store of cmd_tail and its own kick
        return recovered

    def _adopt(self, scanned: RecoveryScan) -> list[Recovered]:
        """Take over the open commands; write the completion that was under way, if any."""
        self._positions.completed, self._positions.fetched = scanned.completed, scanned.fetched
        self._journal.adopt([command.record for command in scanned.open])
        for slot in scanned.completed_slots:
            self._completions.clear_keep_buf(slot)
        recovered = []
        for command in scanned.open:
            record, completion = command.record, command.record.completion
            if completion is None:
                tag = self._commands.admit(record.cmd_id, command.views)
                recovered.append(Recovered(tag, command.cdb, command.views, record.state == BEGUN))
            else:
                uflags = completion.uflags & ~abi.TCMU_UFLAG_KEEP_BUF
                self._completions.write(record.cmd_id, completion._replace(uflags=uflags), command.views)
        return recovered

    def release(self) -> None:
        """Release every view of the memory, so that the map can be closed."""
        self._commands.views.clear()
        self._words.release()
        self._data.release()
        self._journal.release()
