"""The way of answers into one ring: whose they are, into which slot, and when the kernel sees them.

Answers may come in any order: the kernel consumes slots in ring order and finds the
command by the id in the slot, so the answer to X may be written into the slot that Y came
in. Every answer is in the journal before a byte of the slot is touched.

Knows neither how commands are fetched nor files; `kick` is how it tells the kernel.
"""

from collections.abc import Callable

from vscsihba.errors import TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.journal import Journal
from vscsihba.tcmu.mailbox import Mailbox, read_tail
from vscsihba.tcmu.open_commands import OpenCommands
from vscsihba.tcmu.positions import UNKNOWN, Positions
from vscsihba.tcmu.response import CHECK_CONDITION, Response, ResponseWriter


class Answers:
    """What was fetched from one ring, on its way back.

    Args:
        memory: The whole map.
        mailbox: Its mailbox.
        positions: On its ring.
        commands: That are owed an answer.
        journal: Where successors look.
        writer: Fills slots.
        kick: Tells the kernel that `cmd_tail` has moved.
    """

    def __init__(
        self,
        memory: memoryview,
        mailbox: Mailbox,
        *,
        positions: Positions,
        commands: OpenCommands,
        journal: Journal,
        writer: ResponseWriter,
        kick: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._mailbox = mailbox
        self._positions = positions
        self._commands = commands
        self._journal = journal
        self._writer = writer
        self._kick = kick

    def begun(self, tag: int) -> None:
        """Note that an open command is about to do what must not be done twice.

        See `vscsihba.transport.Transport.begun`.
        """
        if tag in self._commands.views:
            self._journal.begin(self._commands.cmd_id(tag))

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer an open command; see `vscsihba.transport.Transport.complete`."""
        if self._owes(tag):
            self._end(tag, Response(0, status, data_in or 0, sense))

    def refuse(self, tag: int) -> None:
        """Answer an open command with UNKNOWN_OP: the kernel's words for "user space cannot".

        The initiator is told CHECK CONDITION with NOT READY, LOGICAL UNIT COMMUNICATION FAILURE
        (target_complete_cmd), gets no data and tries again: for a command that nobody here could
        judge. An operation code that is merely not supported deserves sense data of its own.

        Raises:
            TransportError: `tag` is not open.
        """
        if self._owes(tag):
            self._end(tag, Response(abi.TCMU_UFLAG_UNKNOWN_OP, CHECK_CONDITION))

    def complete_keep_buf(self, tag: int, sense: bytes) -> int | None:
        """Answer an open command whose buffer is still being used.

        See `vscsihba.transport.Transport.complete_keep_buf`. CHECK CONDITION is the one status for which
        nobody touches the buffer: the kernel does not copy it, and it need not be bounded. The kernel keeps
        the buffer, and the id, until the id is written to action/free_kept_buf, the ring is reset
        or the device closed (tcmu_release).
        """
        if not self._mailbox.flags & abi.TCMU_MAILBOX_FLAG_CAP_KEEP_BUF:
            raise TransportError("the kernel cannot keep a buffer", cure="use Linux 5.15 or newer")
        if not self._owes(tag):
            return None
        self._end(tag, Response(abi.TCMU_UFLAG_KEEP_BUF, CHECK_CONDITION, 0, sense))
        return self._commands.cmd_id(tag)

    def _owes(self, tag: int) -> bool:
        """Tell whether the kernel waits for the answer to `tag`; it does not if it has reset the ring."""
        if tag in self._commands.views and self._positions.was_reset():
            self.reattach()
        return self._commands.owes(tag)

    def _end(self, tag: int, response: Response) -> None:
        self.write(self._commands.cmd_id(tag), response, self._commands.views[tag])
        del self._commands.views[tag]

    def write(self, cmd_id: int, response: Response, views: list[memoryview]) -> None:
        """Write an answer into the oldest open slot and step over it; `views` is the buffer it bounds.

        It counts from when the journal's position has moved over it: before that, a successor
        writes it again from the journal, or executes anew what has no record. So nothing that it
        would need for that is touched before the answer is in the journal.
        """
        positions, journal = self._positions, self._journal
        slot = positions.oldest_slot()
        after = positions.after(slot)
        journal.answer(cmd_id, after, response)
        self._writer.write(slot, cmd_id, response, views)
        journal.move_to(after)
        journal.forget(cmd_id)
        positions.completed = after

    def publish(self) -> None:
        """Store `cmd_tail` after all answers, then kick once, if anything moved."""
        positions = self._positions
        if positions.was_reset():
            self.reattach()
        if positions.advanced():
            self._journal.move_to(positions.completed)
            positions.store_tail()
            self._kick()

    def reattach(self) -> tuple[int, ...]:
        """Begin anew at `cmd_tail` after action/reset_ring, which answers all that is pending with BUSY.

        The ring does this by itself where it notices the reset. Returns the tags of the commands
        that are lost: to complete one is then allowed and does nothing, since nobody waits for it.
        Their buffers may belong to other commands already and must not be touched: whoever resets a
        ring that is being served does so with action/block_dev set, and lets running transfers end.
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
