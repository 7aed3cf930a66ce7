"""A TCMU device as a transport: its uio device, its ring and its journal, opened together."""

from contextlib import ExitStack, closing
from pathlib import Path

from vscsihba.tcmu.journal_file import JournalFile
from vscsihba.tcmu.ring import Ring
from vscsihba.tcmu.uio import Uio, UioDevice, identify


class TcmuTransport:
    """One logical unit's ring in the kernel; implements `vscsihba.transport.Transport`.

    Opening does not read the ring: call `recover`, then `drain` once before the first wait, since earlier
    notifications are not repeated (uio_open takes the event count as it stands).

    Args:
        device: From `vscsihba.tcmu.uio.discover`.
        journal: The file of the journal; without one, a successor goes on from `cmd_tail`. All processes
            that ever serve a device must use the same file.

    Raises:
        HostError: The device cannot be opened or mapped, or is in use; or the journal cannot be made.
        RingCorruptError: Its mailbox is not of this ABI.
    """

    def __init__(self, device: UioDevice, journal: Path | None = None) -> None:
        self.device = device
        with ExitStack() as stack:
            # The device first: the process that has it open owns the journal.
            self._uio = stack.enter_context(closing(Uio(device)))
            table = None
            if journal is not None:
                table = stack.enter_context(closing(JournalFile(journal, identify(device)))).journal
            self.ring = Ring(self._uio.memory, self._uio.kick, table)
            self._opened = stack.pop_all()
        self.memory = self.ring.memory
        # The ring's own methods, without a function in between: this is the hot path.
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
        self.fileno = self._uio.fileno
        self.acknowledge = self._uio.acknowledge

    def close(self) -> None:
        """Close the device; open commands stay in ring and journal for a successor."""
        self.ring.release()
        self._opened.close()
