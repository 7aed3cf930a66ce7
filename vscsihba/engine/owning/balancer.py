"""The thread that takes LUNs over and releases them, after each change of the engines or LUNs of an HBA."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from vscsihba.errors import VscsihbaError
from vscsihba.threads import VitalThread, start

log = logging.getLogger(__name__)

AGAIN: Final = 5.0
"""Seconds until the next try after an error."""

PATIENCE: Final = 30.0
"""Seconds that `stop` waits for a LUN that is being opened."""

_CHANGED: Final = "changed"
_END: Final = "end"


class Balancer:
    """Calls `reconcile` on a thread of its own after each change, until stopped.

    If that thread dies of an error of our own, its process ends: such an engine would take over no LUN.

    Args:
        reconcile: Returns the seconds until it is to be called again, None if that is after the next change.
            When it raises a `VscsihbaError`, an OSError or a MemoryError, it is called again after `AGAIN`.
    """

    def __init__(self, reconcile: Callable[[], float | None]) -> None:
        self._reconcile = reconcile
        self._events: SimpleQueue[str] = SimpleQueue()
        self._thread = VitalThread(self._run, "balancer")

    def start(self) -> None:
        """Start the thread, which begins with a first call.

        Raises:
            OSError: The machine has no room for another thread.
        """
        start(self._thread)

    def changed(self) -> None:
        """Note a change; any thread may call this, also before the start."""
        self._events.put(_CHANGED)

    def stop(self, patience: float = PATIENCE) -> None:
        """Make no more calls; wait up to `patience` seconds for the one under way, whose storage may hang."""
        self._events.put(_END)
        self._thread.join(patience)
        if self._thread.is_alive():
            log.error("a LUN that is being opened has not answered for %g s, and is not waited for", patience)

    def _run(self) -> None:
        again = self._try()
        while True:
            try:
                if self._events.get(timeout=again) == _END:
                    return
            except Empty:
                pass
            again = self._try()

    def _try(self) -> float | None:
        """Call `reconcile`; on an error of the host, log it and retry later."""
        try:
            return self._reconcile()
        except (VscsihbaError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            log.error("LUNs cannot be assigned to engines: %s", text)  # noqa: TRY400 - it says all
            return AGAIN
