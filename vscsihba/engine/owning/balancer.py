"""A thread that settles who serves what, whenever an engine or a LUN has come, changed or gone."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from vscsihba.errors import VscsihbaError
from vscsihba.threads import VitalThread, start

log = logging.getLogger(__name__)

AGAIN: Final = 5.0
"""Seconds until another try where settling has failed."""

PATIENCE: Final = 30.0
"""Seconds to wait at the end for a LUN that is being opened."""

_CHANGED: Final = "changed"
_END: Final = "end"


class Balancer:
    """Calls `settle` on a thread of its own after each change, until stopped.

    If that thread dies, of an error of our own, its process ends: it would take over nothing any more.

    Args:
        settle: Does it, and returns the seconds until another try is due; None if all is settled. Where the
            machine refuses (a `VscsihbaError`, an OSError, no memory), it is called again in a while.
    """

    def __init__(self, settle: Callable[[], float | None]) -> None:
        self._settle = settle
        self._events: SimpleQueue[str] = SimpleQueue()
        self._thread = VitalThread(self._run, "balancer")

    def start(self) -> None:
        """Settle now, and from now on.

        Raises:
            OSError: There is no room for another thread.
        """
        start(self._thread)

    def changed(self) -> None:
        """Note a change; any thread may call this, also before the start."""
        self._events.put(_CHANGED)

    def stop(self, patience: float = PATIENCE) -> None:
        """Settle no more, and wait up to `patience` seconds for what is under way: its storage may hang."""
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
        """Settle; a machine that refuses may do so no longer in a while."""
        try:
            return self._settle()
        except (VscsihbaError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            log.error("LUNs cannot be shared out: %s", text)  # noqa: TRY400 - it says all
            return AGAIN
