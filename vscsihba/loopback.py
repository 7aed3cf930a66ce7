"""An HBA port with both ends in this process: initiator, kernel and server.

Everything that serves a TCMU device can serve a `Loopback`, which hands it the very
bytes that the kernel would (`vscsihba.tcmu.kernel`). It needs no kernel, no root and no
device, so that tests, benchmarks and programs can run the whole stack anywhere.

It knows who waits for what, not what a ring looks like.
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

    Any thread may submit, one serves.

    Args:
        ring_size: Bytes of the command ring; made larger to end on a page.
        blocks: Blocks of the data area, `BLOCK` bytes each.
        flags: Capabilities of the mailbox.
        kernel: A kernel's half to use instead of one made from the above.
        journal: The file that says to the next server what is under way; without one, it goes on from
            the tail.

    Attributes:
        answers: What has been answered and not been waited for, by the id from `submit`.
        kicks: Notifications that the server has sent.
        event: The descriptor that tells the server of commands.
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
        self._changed = threading.Condition(threading.Lock())  # the kernel's cmdr_lock, and who waits
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.journal = journal
        self.identity = f"loopback {uuid.uuid4()}"
        self.transport = LoopbackTransport(self)

    def submit(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> int:
        """Queue a command and notify; return its id, the key of `answers` later.

        Args:
            cdb: The command descriptor block, 6 to 260 bytes.
            data_out: What the initiator sends.
            data_in: Bytes that the initiator has room for.

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
        """Return the answer to a command that another thread serves.

        Raises:
            TransportError: None came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: cmd_id in self.answers, seconds):
                raise TransportError(f"no answer to command {cmd_id} within {seconds} s")
            return self.answers.pop(cmd_id)

    @property
    def outstanding(self) -> int:
        """Commands whose id and buffers are taken."""
        return self.kernel.outstanding

    @property
    def broken(self) -> bool:
        """An answer came for a command that was not outstanding."""
        return self.kernel.broken

    # What happens to devices.

    def expire(self, cmd_id: int) -> None:
        """Time a command out: the initiator is told now, and what the server answers later is dropped."""
        with self._changed:
            self.answers[cmd_id] = self.kernel.expire(cmd_id)
            self._changed.notify_all()

    def reset_ring(self) -> None:
        """Answer all that is outstanding with BUSY and empty the ring, as action/reset_ring does."""
        with self._changed:
            self.answers.update(self.kernel.reset())
            self._changed.notify_all()

    def free_kept_buf(self, cmd_id: int) -> None:
        """Free a buffer that was kept, as action/free_kept_buf does.

        Raises:
            TransportError: None was kept under this number.
        """
        with self._changed:
            self.kernel.free_kept_buf(cmd_id)

    def remove(self) -> None:
        """Remove the device under the server, as disabling its backstore does."""
        self.removed = True
        self._notify()

    def consume(self) -> None:
        """Take the answers up to cmd_tail, as a write to the uio device does.

        Raises:
            DeviceGoneError: The device was removed.
            RingCorruptError: An answer carries an id that is not outstanding: the ring is broken.
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
        """Begin to serve, as a process does that has just opened the device of one that is no more.

        What was notified before is not notified again (uio_open): `recover`, then look at the ring
        once.
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
        """Take the notifications back.

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
        """Let go of ring and journal; twice is harmless."""
        self.ring.release()
        self._close_journal()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
