"""Transport: the interface between a source of SCSI commands (one ring of one logical unit) and an engine.

A transport carries commands and completions; it does not know what a CDB means. All calls
come from one thread.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

FastPath = Callable[[int, list[memoryview], int, int], bool]
"""``fast_path(cdb_at, views, length, cmd_id) -> executed``: executes a plain command at once, or leaves it.

Reads the CDB at byte `cdb_at` of the transport's `memory` and the data buffer of `length` bytes
in `views`; `cmd_id` names the command among the open ones. True: executed, to be completed with
GOOD and all of the buffer. False: nothing was done, the command takes the slow path.
"""

Accept = Callable[[int, bytes, list[memoryview]], None]
"""``accept(tag, cdb, views)``: takes a command on the slow path.

The callee must call `Transport.complete` exactly once for the tag, now or later. `cdb` is a
copy, and may have stale bytes after the length that its operation code implies.
"""

ALL: Final = -1
"""No limit to the number of commands that `Transport.drain` hands out."""


@dataclass(frozen=True, slots=True)
class TaskManagement:
    """A task management request of the initiator.

    Attributes:
        function: SAM's name, such as ``ABORT TASK`` or ``LOGICAL UNIT RESET``.
        tags: The open commands that it ends.
    """

    function: str
    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recovered:
    """A command that a predecessor fetched and did not complete; it is open, like any other.

    Attributes:
        tag: Its tag, for `Transport.complete`.
        cdb: As from `Accept`.
        views: Its data buffer.
        begun: The predecessor called `Transport.begun`: it may have been executed, wholly or in part.
    """

    tag: int
    cdb: bytes
    views: list[memoryview]
    begun: bool


class Transport(Protocol):
    """The commands of one logical unit, in order, and their completions."""

    memory: memoryview
    """The memory from which `FastPath` reads CDBs."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when commands may wait for `drain`."""

    def acknowledge(self) -> None:
        """Clear the notification; call this before `drain`.

        Raises:
            DeviceGoneError: The device was removed.
        """

    def drain(self, fast_path: FastPath | None, accept: Accept, most: int = ALL) -> int:
        """Hand out the waiting commands, in order, up to `most`; return their number.

        Without `fast_path`, all take the slow path.

        Stops early at a task management request, which must be acted on before the commands behind
        it: call `take_management`, then drain again.

        Raises:
            RingCorruptError: The contents of the ring break the ABI.
        """

    def complete(self, tag: int, status: int, sense: bytes = b"", data_in: int | None = None) -> None:
        """Complete the command `tag`.

        Args:
            tag: From `Accept`, not yet completed.
            status: SAM status byte.
            sense: Sense data, at most 96 bytes.
            data_in: Valid bytes at the head of the buffer; None or 0 for a command without data-in,
                whose buffer the transport may then overwrite.

        Raises:
            TransportError: `tag` is not open.
        """

    def complete_good(self, commands: Iterable[tuple[int, int]]) -> None:
        """Complete commands with GOOD, in this order.

        Args:
            commands: The tag of each and its valid bytes, as `tag` and `data_in` of `complete`.

        Raises:
            TransportError: A tag is not open; those before it are completed.
        """

    def begun(self, tag: int) -> None:
        """Record, just before the first change by the command `tag`, that it must not run again.

        If this process dies before the completion, the successor sees the record. Not needed for an
        idempotent command, such as a READ or a WRITE.
        """

    def complete_keep_buf(self, tag: int, sense: bytes) -> int | None:
        """Complete the command `tag` with CHECK CONDITION while its buffer is still in use.

        The kernel keeps the buffer, with its contents, for the I/O that still uses it.

        Returns:
            The number to write to action/free_kept_buf when the buffer is no longer in use; None if the ring
            was reset, and no buffer is kept.

        Raises:
            TransportError: `tag` is not open, or the kernel cannot keep a buffer.
        """

    def recover(self) -> list[Recovered]:
        """Go on where a predecessor died; call it once, before the first `drain`.

        Completions of the predecessor are published, each once; commands that it had not fetched come by
        `drain`; the others are returned, in order of arrival. A new ring returns an empty list.

        Raises:
            JournalDamagedError: The open commands are unknown. Nothing was changed: reset the ring
                (action/reset_ring; initiators get BUSY and try again), then call `restart`.
            RingCorruptError: The ring itself is damaged: likewise.
        """

    def restart(self) -> tuple[int, ...]:
        """Begin anew after a reset of the ring; return the tags of the commands that it ended."""

    def take_management(self) -> list[TaskManagement]:
        """Remove and return the task management requests that `drain` has met."""

    def publish(self) -> None:
        """Show all completions to the kernel, with one notification."""

    def pending(self) -> bool:
        """Return whether commands wait that `drain` has not handed out: one load, for polling."""

    def close(self) -> None:
        """Release memory and descriptors; open commands stay for a successor."""
