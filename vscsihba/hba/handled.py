"""One LUN that a handler stack serves: the caller gives a document and sees no commands.

Knows that a `ServableLun` serves it, not how.
"""

from typing import Protocol

from vscsihba.engine.serving.lun import ServedLun
from vscsihba.errors import InUseError, TransportError


class ServableLun(Protocol):
    """A LUN that this process can serve, such as `vscsihba.engine.owning.owned_lun.OwnedLun`."""

    served: ServedLun | None

    def open(self) -> bool:
        """Open storage and ring, and serve; False if another process serves it."""

    def close(self) -> None:
        """Finish and answer the commands under way, and close ring and storage."""


class HandledLun:
    """A LUN that the pump's thread serves until it is closed.

    Args:
        number: Number of the LUN.
        servable: The LUN, closed.

    Attributes:
        unit: Its SCSI state, for the pump's thread only.
        geometry: Its shape.

    Raises:
        UsageError, HostError, OSError: The stack cannot be opened, or the ring cannot be created.
    """

    def __init__(self, number: int, servable: ServableLun) -> None:
        self.number = number
        self._servable = servable
        if not servable.open() or servable.served is None:
            raise InUseError(
                f"LUN {number} is served by another process", cure="stop that process, or choose another LUN"
            )
        self._served = servable.served
        self.unit = self._served.unit
        self.geometry = self._served.handler.geometry

    @property
    def failed(self) -> bool:
        """Whether its commands are not answered: the ring is gone, or the storage hangs."""
        return self._served.failure is not None or self._served.hung

    def fail(self, error: TransportError) -> None:
        """Note and report that its commands are no longer answered."""
        self._served.failed(error)

    def close(self) -> None:
        """Stop serving, wait until no verb uses the ring's memory, close the stack."""
        self._servable.close()
