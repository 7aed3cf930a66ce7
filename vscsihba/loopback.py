"""An HBA port with both ends in this process: initiator, kernel and server.

Code that serves a TCMU device can serve a `Loopback`, whose ring has the same
bytes (`vscsihba.tcmu.kernel`). It needs no kernel module, no root and no
device, so tests, benchmarks and programs can run the whole stack anywhere.

Knows waiting and notification, not the layout of a ring.
"""

import os
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

from vscsihba.errors import DeviceGoneError, TransportError
from vscsihba.tcmu.journal_file import JournalFile
from vscsihba.tcmu.kernel import BLOCK, Answer, KernelHalf
from vscsihba.tcmu.ring import Ring

__all__ = ["BLOCK", "Answer", "Loopback", "LoopbackTransport"]


class Loopback:
    """A ring with both ends in this process; the serving end is `transport`.

    Any thread may submit; one thread serves.

    Args:
        ring_size: Bytes of the command ring; made larger to end on a page.
        blocks: Blocks of the data area, `BLOCK` bytes each.
        flags: Capabilities of the mailbox.
        kernel: A kernel's half to use instead of one made from the above.
        journal: The file of the journal; without one, the next server goes on from the tail.

    Attributes:
        answers: Responses that no `wait` has returned yet, by the id from `submit`.
        kicks: Notifications that the server has sent.
        event: The descriptor that notifies the server of commands.
    """

    def __init__(
        self,
        *,
        ring_size: int = 64 * 1024 - 128,
        blocks: int = 1024,
        flags: int = 0xF,
        kernel: KernelHalf | None = None,
        journal: Path | None = None,
    ) -> None:
        self.kernel = kernel or KernelHalf(ring_size, blocks, flags)
        self.memory = self.kernel.memory
        self.answers: dict[int, Answer] = {}
        self.kicks = 0
        self.removed = False
        self._changed = threading.Condition(
            threading.Lock()
        )  # the kernel's cmdr_lock, and a condition to wait on
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.journal = journal
        self.identity = f"loopback {uuid.uuid4()}"
        self.transport = LoopbackTransport(self)

    def submit(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> int:
        """Queue a command and notify; return its id, the key of `answers` later.

        Args:
            cdb: The command descriptor block, 6 to 260 bytes.
            data_out: Data of the initiator.
            data_in: Bytes of the initiator's data-in buffer.

        Raises:
            TransportError: The ring or the data area is full, or the ring is broken.
        """
        with self._changed:
            cmd_id = self.kernel.queue(cdb, data_out, data_in)
        self._notify()
        return cmd_id

    def manage(self, tmr_type: int, cmd_ids: Sequence[int] = ()) -> None:
        """Queue a task management notification that names commands.

        Raises:
            TransportError: The ring is full.
        """
        with self._changed:
            self.kernel.queue_management(tmr_type, cmd_ids)
        self._notify()

    def wait(self, cmd_id: int, seconds: float = 10) -> Answer:
        """Return the response to a command that another thread serves.

        Raises:
            TransportError: None came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: cmd_id in self.answers, seconds):
                raise TransportError(f"no response to command {cmd_id} within {seconds} s")
            return self.answers.pop(cmd_id)

    @property
    def outstanding(self) -> int:
        """Number of commands whose id and buffers are in use."""
        return self.kernel.outstanding

    @property
    def broken(self) -> bool:
        """The ring is broken: a completion had an id that was not outstanding."""
        return self.kernel.broken

    # Events of a device.

    def expire(self, cmd_id: int) -> None:
        """Let a command expire: the initiator gets its failure now; the late completion is dropped."""
        with self._changed:
            self.answers[cmd_id] = self.kernel.expire(cmd_id)
            self._changed.notify_all()

    def reset_ring(self) -> None:
        """Complete all outstanding commands with BUSY and empty the ring, as action/reset_ring does."""
        with self._changed:
            self.answers.update(self.kernel.reset())
            self._changed.notify_all()

    def free_kept_buf(self, cmd_id: int) -> None:
        """Free a buffer that was kept, as action/free_kept_buf does.

        Raises:
            TransportError: No buffer is kept under this number.
        """
        with self._changed:
            self.kernel.free_kept_buf(cmd_id)

    def remove(self) -> None:
        """Remove the device under the server, as disabling its backstore does."""
        self.removed = True
        self._notify()

    def consume(self) -> None:
        """Consume the completions up to cmd_tail, as a write to the uio device does.

        Raises:
            DeviceGoneError: The device was removed.
            RingCorruptError: A completion has an id that is not outstanding: the ring is broken.
        """
        if self.removed:
            raise DeviceGoneError("the loopback was removed")
        with self._changed:
            self.kicks += 1
            self.answers.update(self.kernel.consume())
            self._changed.notify_all()

    def _notify(self) -> None:
        os.eventfd_write(self.event, 1)

    def close(self) -> None:
        """Free the memory and the descriptors."""
        self.transport.close()
        self.kernel.close()
        os.close(self.event)


class LoopbackTransport:
    """The serving end of a `Loopback`; implements `vscsihba.transport.Transport`."""

    def __init__(self, loopback: Loopback) -> None:
        self._loopback = loopback
        self._journal: JournalFile | None = None
        self.attach()

    def attach(self) -> None:
        """Begin to serve, like a process that opens the device after the death of another.

        Earlier notifications are not repeated (uio_open): call `recover`, then `drain` once.
        """
        self.acknowledge()
        loopback, table = self._loopback, None
        loopback.kernel.release()
        self._close_journal()
        if loopback.journal is not None:
            self._journal = JournalFile(loopback.journal, loopback.identity)
            table = self._journal.journal
        self.ring = Ring(loopback.memory[:], loopback.consume, table)
        self.memory = self.ring.memory
        self.drain = self.ring.drain
        self.complete = self.ring.complete
        self.complete_good = self.ring.complete_good
        self.publish = self.ring.publish
        self.pending = self.ring.pending
        self.take_management = self.ring.take_management
        self.begun = self.ring.begun
        self.complete_keep_buf = self.ring.complete_keep_buf
        self.recover = self.ring.recover
        self.restart = self.ring.restart

    def fileno(self) -> int:
        """Return the descriptor that is readable when commands were queued."""
        return self._loopback.event

    def acknowledge(self) -> None:
        """Clear the notifications.

        Raises:
            DeviceGoneError: The device was removed.
        """
        if self._loopback.removed:
            raise DeviceGoneError("the loopback was removed")
        try:
            os.eventfd_read(self._loopback.event)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Release ring and journal; twice is harmless."""
        self.ring.release()
        self._close_journal()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
