"""A TCMU device as a transport: its uio device and its ring, opened together."""

from contextlib import ExitStack, closing

from vscsihba.tcmu.ring import Ring
from vscsihba.tcmu.uio import Uio, UioDevice


class TcmuTransport:
    """One logical unit's ring in the kernel; implements `vscsihba.transport.Transport`.

    Opening scans nothing: call `drain` once before the first wait, since what arrived
    before is not notified again (uio_open takes the event count as it stands).

    Args:
        device: From `vscsihba.tcmu.uio.discover`.

    Raises:
        HostError: The device cannot be opened or mapped, or is in use.
        RingCorruptError: Its mailbox is not one of this ABI.
    """

    def __init__(self, device: UioDevice) -> None:
        self.device = device
        with ExitStack() as undo:
            self._uio = undo.enter_context(closing(Uio(device)))
            self.ring = Ring(self._uio.memory, self._uio.kick)
            undo.pop_all()
        self.memory = self.ring.memory
        # The ring's own methods, with no frame of ours between: this is the hot path.
        self.drain = self.ring.drain
        self.complete = self.ring.complete
        self.publish = self.ring.publish
        self.pending = self.ring.pending
        self.take_management = self.ring.take_management
        self.fileno = self._uio.fileno
        self.acknowledge = self._uio.acknowledge

    def close(self) -> None:
        """Let the device go; what is open stays in the ring for whoever comes next."""
        self.ring.release()
        self._uio.close()
