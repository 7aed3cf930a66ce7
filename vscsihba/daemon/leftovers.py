"""LUNs of an HBA that are not wanted: leftovers of a change that was cut off.

An engine knows such a LUN, or only the kernel does, since the engine that added it has died. What cannot be
removed at once is tried again. Knows the requests that engines take, and no document.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from vscsihba.daemon.engine_pool import EngineHandle
from vscsihba.errors import UsageError, VscsihbaError

log = logging.getLogger(__name__)


class Leftovers:
    """The LUNs of one HBA that are not wanted.

    Args:
        hba_id: 0..255.
        linked: Returns the LUNs of the HBA that the kernel has.
    """

    def __init__(self, hba_id: int, linked: Callable[[], Collection[int]]) -> None:
        self._id = hba_id
        self._linked = linked
        self._checked: list[EngineHandle] = []
        self._expected = False
        self._said: set[int | str] = set()

    def expect(self) -> None:
        """Note that engines and the kernel may have LUNs that are not wanted."""
        self._expected = True

    @property
    def removed(self) -> bool:
        """Whether there is none."""
        return not self._expected

    def remove(
        self,
        running: Sequence[EngineHandle],
        wanted: Collection[int],
        is_wanted: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        """Remove the LUNs that are not wanted, as far as engines and the kernel let that happen.

        Args:
            running: The engines that have not died; some may have been found only now.
            wanted: The numbers of the wanted LUNs.
            is_wanted: Tells of a LUN in an engine's status whether it is wanted, and is the same disk.
        """
        if not self._expected or not running:
            return
        for engine in running:
            if engine not in self._checked and self._remove_from(engine, is_wanted):
                self._checked.append(engine)
        if all(engine in self._checked for engine in running):
            self._remove_from_kernel(running[0], wanted)

    def _remove_from_kernel(self, engine: EngineHandle, wanted: Collection[int]) -> None:
        """Remove the LUNs that no engine knows."""
        try:
            for lun in sorted(set(self._linked()) - set(wanted)):
                self._say(lun)
                engine.ask("remove_lun", {"lun": lun})
        except (VscsihbaError, OSError) as error:
            self._complain(error)
            return
        self._expected = False
        self._checked.clear()

    def _remove_from(self, engine: EngineHandle, is_wanted: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Remove the LUNs that are not wanted from an engine; return whether it knows none any more."""
        try:
            unwanted = [lun["lun"] for lun in engine.ask("status", {})["luns"] if not is_wanted(lun)]
        except VscsihbaError as error:
            self._complain(error)
            return False
        removed = True
        for lun in unwanted:
            self._say(lun)
            try:
                _remove(engine, lun)
            except VscsihbaError as error:
                self._complain(error)
                removed = False
        return removed

    def _say(self, lun: int) -> None:
        if lun not in self._said:
            self._said.add(lun)
            log.warning("LUN %d of HBA %d is removed: a change was interrupted", lun, self._id)

    def _complain(self, error: Exception) -> None:
        """Log an error, once however often it comes back."""
        if str(error) not in self._said:
            self._said.add(str(error))
            log.error("HBA %d: %s", self._id, error)


def _remove(engine: EngineHandle, lun: int) -> None:
    """Remove a LUN from an engine, and from the kernel if no other engine knows it."""
    try:
        engine.ask("remove_lun", {"lun": lun, "leave": True})
    except UsageError:
        engine.ask("remove_lun", {"lun": lun})
