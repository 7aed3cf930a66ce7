"""What any source of SCSI commands offers to an engine: one ring of one logical unit.

A transport carries commands and answers; it does not know what a CDB means. Its
threading rule is simple: one thread calls it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

FastPath = Callable[[int, list[memoryview], int], bool]
"""``fast_path(cdb_at, views, length) -> answered``: executes a plain command at once, or leaves it alone.

Reads the CDB at byte `cdb_at` of the transport's `memory` and the data buffer of
`length` bytes in `views`. True: executed, to be answered with GOOD and all of the
buffer. False: nothing was done, the command takes the slow path.
"""

Accept = Callable[[int, bytes, list[memoryview]], None]
"""``accept(tag, cdb, views)``: takes a command on the slow path.

The callee owes exactly one `Transport.complete` for the tag, now or later. `cdb` is a
copy, and may carry some stale bytes after the length that its opcode implies.
"""

ALL: Final = -1
"""No limit to how many commands `Transport.drain` hands out."""


@dataclass(frozen=True, slots=True)
class TaskManagement:
    """A task management request from the initiator's side.

    Attributes:
        function: SAM's name, such as ``ABORT TASK`` or ``LOGICAL UNIT RESET``.
        tags: The commands that it ends and that this side still knows of.
    """

    function: str
    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recovered:
    """A command that a predecessor took and did not answer; it is open, like any other.

    Attributes:
        tag: What to answer.
        cdb: As from `Accept`.
        views: Its data buffer.
        begun: The predecessor called `Transport.begun`: it may have been executed, in part or wholly.
    """

    tag: int
    cdb: bytes
    views: list[memoryview]
    begun: bool


class Transport(Protocol):
    """One logical unit's commands, in order, and the way back."""

    memory: memoryview
    """What `FastPath` reads CDBs from."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when `drain` is worth a call."""

    def acknowledge(self) -> None:
        """Take the notification back, before `drain` looks.

        Raises:
            DeviceGoneError: The other side is gone for good.
        """

    def drain(self, fast_path: FastPath, accept: Accept, most: int = ALL) -> int:
        """Hand out the waiting commands, in order, up to `most`; return their number.

        Stops early at a task management request, so that it is acted on before what came after
        it: take it, then drain again.

        Raises:
            RingCorruptError: The ring holds what it cannot hold.
        """

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer the command `tag`.

        Args:
            tag: From `Accept`, not yet completed.
            status: SAM status byte.
            sense: Sense data, at most 96 bytes.
            data_in: Valid bytes at the head of the buffer; None or 0 for a command that returns nothing,
                whose buffer the transport may then overwrite.

        Raises:
            TransportError: `tag` is not open.
        """

    def begun(self, tag: int) -> None:
        """Note, just before the first change that the command `tag` makes, that it must not run twice.

        Should this process die before the answer, the successor is told. Not needed for a command that
        can be repeated without harm, such as a READ or a WRITE.
        """

    def complete_keep_buf(self, tag: int, sense: bytes) -> int | None:
        """Answer the command `tag` with CHECK CONDITION while somebody still uses its buffer.

        The buffer stays taken, and as it is: what it holds may still be written somewhere.

        Returns:
            The number by which the other side is told, later, that nobody uses the buffer any more (to be
            written to action/free_kept_buf); None if the ring was reset and there is nothing to tell.

        Raises:
            TransportError: `tag` is not open, or the other side cannot keep a buffer.
        """

    def recover(self) -> list[Recovered]:
        """Go on where a predecessor died; call it once, before the first `drain`.

        What was answered is published, each answer once; what had not been taken comes by
        `drain`; the rest is returned, in order of arrival. A ring without a past returns nothing.

        Raises:
            JournalDamagedError: It cannot be told what was under way. Nothing was changed: have the ring
                reset (action/reset_ring; the initiators are told BUSY and try again), then `restart`.
            RingCorruptError: The ring itself is damaged: likewise.
        """

    def restart(self) -> tuple[int, ...]:
        """Begin anew after a reset of the ring; return the tags of the commands that it ended."""

    def take_management(self) -> list[TaskManagement]:
        """Return and forget the task management requests that `drain` has met."""

    def publish(self) -> None:
        """Make all that was answered visible to the other side, with one notification."""

    def pending(self) -> bool:
        """Return whether commands wait that `drain` has not handed out: one load, for polling."""

    def close(self) -> None:
        """Let go of memory and descriptors; open commands stay for whoever comes next."""
