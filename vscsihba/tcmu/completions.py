"""Completions of one ring: their content, the slot that each goes into, and the moment the kernel sees them.

Commands may be completed in any order: the kernel consumes slots in ring order and finds the
command by the id in the slot, so the completion of X may be written into the slot that Y came
in. Every completion is in the journal before a byte of the slot is touched.

Knows neither how commands are fetched nor files; `kick` notifies the kernel.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from vscsihba.errors import TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.mailbox import Mailbox, read_tail
from vscsihba.tcmu.open_commands import ID_MASK, OpenCommands
from vscsihba.tcmu.positions import UNKNOWN, Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vscsihba.tcmu.data_area import DataArea
    from vscsihba.tcmu.journal import Journal

_GOOD = 0
CHECK_CONDITION = 2
"""The one SAM status that the kernel treats apart: it copies sense, and data only with READ_LEN."""

_SLOT = struct.Struct("=HBBB3xI")
"""From byte 4 of an entry: cmd_id, kflags, uflags, scsi_status, read_len."""
_READ_LEN = abi.TCMU_UFLAG_READ_LEN
_UFLAGS = abi.tcmu_cmd_entry_hdr.uflags.offset


class Completion(NamedTuple):
    """The completion of one command, before it is written into a slot.

    Attributes:
        uflags: ``TCMU_UFLAG_*``.
        scsi_status: SAM status.
        valid: Valid bytes at the head of the buffer.
        sense: Sense data.
    """

    uflags: int = 0
    scsi_status: int = 0
    valid: int = 0
    sense: bytes = b""


@lru_cache
def _good(valid: int) -> Completion:
    """Return a completion with GOOD; there are few different lengths."""
    return Completion(valid=valid)


class Completions:
    """The completing half of one ring.

    Args:
        memory: The whole map.
        mailbox: Its mailbox.
        data: Its data area.
        positions: On its ring.
        commands: The open commands, each of which is owed a completion.
        journal: The record for a successor.
        kick: Tells the kernel that `cmd_tail` has moved.
    """

    def __init__(
        self,
        memory: memoryview,
        mailbox: Mailbox,
        *,
        data: DataArea,
        positions: Positions,
        commands: OpenCommands,
        journal: Journal,
        kick: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._mailbox = mailbox
        self._data = data
        self._positions = positions
        self._commands = commands
        self._journal = journal
        self._kick = kick
        self._has_read_len = bool(mailbox.flags & abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN)

    def begun(self, tag: int) -> None:
        """Record that an open command is about to do what must not be done twice.

        See `vscsihba.transport.Transport.begun`.
        """
        if tag in self._commands.views:
            self._journal.begin(tag & ID_MASK)

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Complete an open command; see `vscsihba.transport.Transport.complete`."""
        self._end(tag, Completion(0, status, data_in or 0, sense))

    def complete_good(self, commands: Iterable[tuple[int, int]]) -> None:
        """Complete open commands with GOOD; see `vscsihba.transport.Transport.complete_good`."""
        positions, journal, memory = self._positions, self._journal, self._memory
        open_commands, has_read_len = self._commands.views, self._has_read_len
        if positions.was_reset():
            self.reattach()
        for tag, valid in commands:
            views = open_commands.get(tag)
            if views is None:
                self._commands.take_lost(tag)
                continue
            cmd_id = tag & ID_MASK
            slot = positions.oldest_slot()
            after = positions.after(slot)
            journal.complete(cmd_id, after, _good(valid))
            if valid and has_read_len and views:
                flag, read_len = _READ_LEN, valid
            else:
                flag, read_len = self._bound(views, _GOOD, valid)
            _SLOT.pack_into(memory, slot + 4, cmd_id, 0, flag, _GOOD, read_len)
            journal.settle(cmd_id, after)
            positions.completed = after
            del open_commands[tag]

    def refuse(self, tag: int) -> None:
        """Complete an open command with UNKNOWN_OP, the kernel's flag for commands that user space cannot do.

        The initiator gets CHECK CONDITION with NOT READY, LOGICAL UNIT COMMUNICATION FAILURE
        (target_complete_cmd), no data, and tries again. For a command that could not be decoded or
        recorded; an operation code that is merely not supported deserves sense data of its own.

        Raises:
            TransportError: `tag` is not open.
        """
        self._end(tag, Completion(abi.TCMU_UFLAG_UNKNOWN_OP, CHECK_CONDITION))

    def complete_keep_buf(self, tag: int, sense: bytes) -> int | None:
        """Complete an open command whose buffer is still in use.

        See `vscsihba.transport.Transport.complete_keep_buf`. CHECK CONDITION is the one status for which
        nobody touches the buffer: the kernel does not copy it, and READ_LEN is not needed. The kernel keeps
        the buffer, and the id, until the id is written to action/free_kept_buf, the ring is reset
        or the device closed (tcmu_release).
        """
        if not self._mailbox.flags & abi.TCMU_MAILBOX_FLAG_CAP_KEEP_BUF:
            raise TransportError("the kernel cannot keep a buffer", cure="use Linux 5.15 or newer")
        done = self._end(tag, Completion(abi.TCMU_UFLAG_KEEP_BUF, CHECK_CONDITION, 0, sense))
        return tag & ID_MASK if done else None

    def _end(self, tag: int, completion: Completion) -> bool:
        """Complete an open command; return False if a reset of the ring has ended it.

        Raises:
            TransportError: `tag` is not open.
        """
        views = self._commands.views
        if self._positions.was_reset():
            self.reattach()
        if tag not in views:
            self._commands.take_lost(tag)
            return False
        self.write(tag & ID_MASK, completion, views[tag])
        del views[tag]
        return True

    def write(self, cmd_id: int, completion: Completion, views: list[memoryview]) -> None:
        """Write a completion into the oldest open slot and step over it.

        It counts from the moment at which the journal's position has moved over its slot: before that, a
        successor writes it again from the journal, or executes a command without a record anew. So the
        slot is not touched before the completion is in the journal.

        Args:
            cmd_id: The kernel's name of the command.
            completion: Its completion.
            views: Its data buffer.
        """
        positions, journal = self._positions, self._journal
        slot = positions.oldest_slot()
        after = positions.after(slot)
        journal.complete(cmd_id, after, completion)
        uflags, status, valid, sense = completion
        flag, read_len = self._bound(views, status, valid)
        if status == CHECK_CONDITION:  # always: without, the kernel takes the request's bytes for sense
            at, size = slot + abi.SENSE_OFFSET, abi.TCMU_SENSE_BUFFERSIZE
            self._memory[at : at + size] = sense[:size].ljust(size, b"\0")
        _SLOT.pack_into(self._memory, slot + 4, cmd_id, 0, uflags | flag, status, read_len)
        journal.settle(cmd_id, after)
        positions.completed = after

    def _bound(self, views: list[memoryview], status: int, valid: int) -> tuple[int, int]:
        """Return the flag and the read_len that keep bytes behind the `valid` ones from the initiator.

        Data pages are reused dirty, and the kernel copies all of the buffer to an initiator that reads
        unless it is told a length, with every status but CHECK CONDITION. Whether the initiator
        reads is not in the ring: its direction need not be the one that the CDB implies. So every
        completion carries the length, and where the kernel takes none, the buffer is zeroed.
        """
        if not (valid or status != CHECK_CONDITION):
            return 0, 0
        if not self._has_read_len:
            self._data.zero(views, valid)
            return 0, 0
        if not views:
            return 0, 0
        if not valid:  # tcmu_handle_completion ignores a read_len of 0
            views[0][0] = 0
        return abi.TCMU_UFLAG_READ_LEN, valid or 1

    def clear_keep_buf(self, slot: int) -> None:
        """Clear KEEP_BUF in a completed slot: the process that used the buffer is dead."""
        self._memory[slot + _UFLAGS] &= ~abi.TCMU_UFLAG_KEEP_BUF

    def publish(self) -> None:
        """Store `cmd_tail` after all completions, then kick once, if anything moved."""
        positions = self._positions
        if positions.was_reset():
            self.reattach()
        if positions.oldest_slot() - positions.start != positions.tail:
            self._journal.move_to(positions.completed)
            positions.store_tail()
            self._kick()

    def reattach(self) -> tuple[int, ...]:
        """Begin anew at `cmd_tail` after action/reset_ring, which completes all open commands with BUSY.

        The ring calls this where it notices the reset. Returns the tags of the lost commands: to complete
        one is then allowed and does nothing, since nobody waits for it. Their buffers may belong to other
        commands already and must not be touched: set action/block_dev and let running transfers end
        before you reset a ring that is being served.
        """
        if self._positions.tail == UNKNOWN:
            raise TransportError("the journal of the ring has not been read")
        return self.restart()

    def restart(self) -> tuple[int, ...]:
        """Do the same where the journal cannot be read; see `vscsihba.transport.Transport.restart`."""
        lost = self._commands.lose()
        self._positions.begin_at(read_tail(self._memory, self._mailbox))
        self._journal.restart(self._positions.completed)
        return lost
