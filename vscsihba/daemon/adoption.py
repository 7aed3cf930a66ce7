"""Engines of an HBA whose running ones could not be found when the service started.

No engine may be started beside them, so looking for them is tried again first. Knows nothing of LUNs.
"""

from collections.abc import Callable, Sequence

from vscsihba.daemon.engine_pool import EngineHandle


class Adoption:
    """Starts the engines of an HBA, those that run already first.

    Args:
        find: Returns the engines of an HBA that run.
        start: Starts an engine for an HBA.
        size: The wanted number of engines; those beyond it are ended.
    """

    def __init__(
        self,
        find: Callable[[int], Sequence[EngineHandle]],
        start: Callable[[int], EngineHandle],
        size: int,
    ) -> None:
        self._find = find
        self._start = start
        self._size = size
        self._running: list[EngineHandle] | None = None

    def __call__(self, hba_id: int) -> EngineHandle:
        """Return the next engine that runs already, or start one.

        Raises:
            UsageError, HostError, OSError: The engines cannot be found, or none can be started.
        """
        if self._running is None:
            found = list(self._find(hba_id))
            for surplus in found[self._size :]:
                surplus.end()
            self._running = found[: self._size]
        return self._running.pop(0) if self._running else self._start(hba_id)
