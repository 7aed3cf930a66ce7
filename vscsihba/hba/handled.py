"""One LUN that a stack of handlers serves: the caller gives a document and sees no commands.

Knows that somebody holds it, as an engine does, not how.
"""

from typing import Protocol

from vscsihba.engine.serving.lun import ServedLun
from vscsihba.errors import InUseError, TransportError


class ServableLun(Protocol):
    """A LUN while this process serves it, such as `vscsihba.engine.owning.owned_lun.OwnedLun`."""

    served: ServedLun | None

    def open(self) -> bool:
        """Open medium and ring, go on with what is under way, and serve; False if somebody else does."""

    def close(self) -> None:
        """Finish what is under way, answer it, and let go of ring and medium."""


class HandledLun:
    """A LUN served by the pump's thread, until it is closed.

    Args:
        number: Of the LUN.
        holding: Not open.

    Attributes:
        unit: Its SCSI state, which belongs to the pump's thread.
        geometry: Its shape.

    Raises:
        UsageError, HostError, OSError: The stack cannot be opened, or the ring not be made.
    """

    def __init__(self, number: int, holding: ServableLun) -> None:
        self.number = number
        self._holding = holding
        if not holding.open() or holding.served is None:
            raise InUseError(f"LUN {number} is served by another process", cure="end that, or choose another")
        self._served = holding.served
        self.unit = self._served.unit
        self.geometry = self._served.handler.geometry

    @property
    def failed(self) -> bool:
        """Tell whether its commands are not answered: the ring is gone, or the storage hangs."""
        return self._served.failure is not None or self._served.hung

    def fail(self, error: TransportError) -> None:
        """Note that its commands are not answered any more, and report it."""
        self._served.failed(error)

    def close(self) -> None:
        """Stop serving, wait until nothing touches the ring's memory, close the stack."""
        self._holding.close()
