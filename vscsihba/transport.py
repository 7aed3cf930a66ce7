"""What any source of SCSI commands offers to an engine: one ring of one logical unit.

A transport carries commands and answers; it does not know what a CDB means. Its
threading rule is simple: one thread calls it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Cut = Callable[[int, list[memoryview], int], bool]
"""``cut(cdb_at, views, length) -> answered``: the short cut.

Reads the CDB at byte `cdb_at` of the transport's `memory` and the data buffer of
`length` bytes in `views`; True: executed, to be answered with GOOD and all of the
buffer; False: nothing was done, take the long road.
"""

Accept = Callable[[int, bytes, list[memoryview]], None]
"""``accept(tag, cdb, views)``: the long road.

The callee owes exactly one `Transport.complete` for the tag, now or later. `cdb` is a
copy, and may carry some stale bytes after the length that its opcode implies.
"""


@dataclass(frozen=True, slots=True)
class TaskManagement:
    """A task management request from the initiator's side.

    Attributes:
        function: SAM's name, such as ``ABORT TASK`` or ``LOGICAL UNIT RESET``.
        tags: The commands that it ends and that this side still knows of.
    """

    function: str
    tags: tuple[int, ...]


class Transport(Protocol):
    """One logical unit's commands, in order, and the way back."""

    memory: memoryview
    """What `Cut` reads CDBs from."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when `drain` is worth a call."""

    def acknowledge(self) -> None:
        """Take the notification back, before `drain` looks.

        Raises:
            DeviceGoneError: The other side is gone for good.
        """

    def drain(self, cut: Cut, accept: Accept) -> int:
        """Hand out the waiting commands, in order; return their number.

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

    def take_management(self) -> list[TaskManagement]:
        """Return and forget the task management requests that `drain` has met."""

    def publish(self) -> None:
        """Make all that was answered visible to the other side, with one notification."""

    def pending(self) -> bool:
        """Tell whether commands wait that `drain` has not handed out: one load, for polling."""

    def close(self) -> None:
        """Let go of memory and descriptors; open commands stay for whoever comes next."""
