"""One LUN that a stack of handlers serves: the caller gives a document and sees no commands.

Puts the engine's parts together for it; knows nothing of the HBA around.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from vscsihba import scsi
from vscsihba.block import Geometry
from vscsihba.engine.lun import ServedLun
from vscsihba.engine.pump import Pump
from vscsihba.engine.reports import Reports
from vscsihba.handlers.stack import Document, build
from vscsihba.stats import LunStats
from vscsihba.transport import Transport

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds to wait for verbs under way before the ring is left as it is."""

Attach = Callable[[int, Geometry, str], Transport]


class HandledLun:
    """A LUN served by the pump's thread.

    Args:
        number: Of the LUN.
        document: Its handler stack.
        attach: Makes its ring (`vscsihba.hba.port.Port.attach`).
        pump: A running one.
        on_failure: Told, in a line of text, when the ring can no longer be served.

    Attributes:
        unit: Its SCSI state, which belongs to the pump's thread.

    Raises:
        UsageError, HostError, OSError: The stack cannot be opened, or the ring not be made.
    """

    def __init__(
        self,
        number: int,
        document: Document,
        attach: Attach,
        pump: Pump,
        on_failure: Callable[[str], None],
    ) -> None:
        self.number = number
        self._pump = pump
        stats = LunStats()
        with ExitStack() as undo:
            medium = undo.enter_context(build(document, place=f"LUN {number}"))
            self.geometry = medium.geometry
            identity = scsi.Identity.derive(medium.identity)
            self.unit = scsi.LogicalUnit(self.geometry, medium.capabilities, identity, stats=stats)
            self._served = ServedLun(
                number,
                attach(number, self.geometry, identity.serial),
                self.unit,
                medium,
                pump.mailbox,
                stats=stats,
                reports=Reports(failed=on_failure),
            )
            self._undo = undo.pop_all()
        pump.mailbox.post(partial(pump.add, self._served))

    @property
    def failed(self) -> bool:
        """Tell whether its ring can no longer be served."""
        return self._served.failure is not None

    def close(self) -> None:
        """Stop serving, wait until nothing touches the ring's memory, close the stack."""
        closed = threading.Event()

        def begin() -> None:
            self._pump.remove(self._served)
            self._served.finish(closed.set)

        self._pump.mailbox.post(begin)
        if not closed.wait(_PATIENCE):
            log.error("LUN %d: its storage does not answer; its commands are left unanswered", self.number)
        self._undo.close()
