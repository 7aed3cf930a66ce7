"""Sessions that cannot end because their storage does not answer: their commands are ended after a while.

When an initiator logs in again, as after its reboot, the kernel ends its former session first, and waits for
the commands of that session. Until then the portal takes no login of any initiator.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from vscsihba import configfs
from vscsihba.config.export import Export
from vscsihba.config.model import Document

log = logging.getLogger(__name__)

_Waiting = tuple[str, str]
"""An export and an initiator; the initiator is empty for the logins of an open export."""


class Kernel(Protocol):
    """The sessions of the kernel's targets."""

    def ending(self, name: str) -> frozenset[str]:
        """Return the listed initiators of a target whose session waits for its commands to end."""

    def logins_wait(self) -> bool:
        """Return whether a login waits for the end of a session, of any target."""


class Lio:
    """LIO, the kernel's own target."""

    ending = staticmethod(configfs.ending_sessions)
    logins_wait = staticmethod(configfs.logins_wait)


class StuckSessions:
    """The sessions that have waited for their end since the last look.

    Args:
        give_up_old: Ends the commands of an HBA's LUN that storage has not answered for some seconds.
        kernel: The sessions of the kernel's targets.
    """

    def __init__(self, give_up_old: Callable[[int, int], None], kernel: Kernel | None = None) -> None:
        self._give_up_old = give_up_old
        self._kernel = kernel or Lio()
        self._looks: dict[_Waiting, int] = {}

    def look(self, document: Document) -> None:
        """End the commands of sessions that wait for their end at this look and at the one before.

        Commands are ended once: if the session stays, it does not wait for them.
        """
        waiting = set(self._waiting(document.exports))
        self._looks = {each: self._looks.get(each, 0) + 1 for each in waiting}
        for name, initiator in sorted(each for each, looks in self._looks.items() if looks == 2):
            who = f"the session of {initiator}" if initiator else "a session"
            log.warning("%s on %s does not end: commands that storage has not answered are ended", who, name)
            for place in _places(document, name, initiator):
                self._give_up_old(*place)

    def _waiting(self, exports: Iterable[Export]) -> Iterator[_Waiting]:
        logins_wait = any(export.open for export in exports) and self._kernel.logins_wait()
        for export in exports:
            if export.open and logins_wait:
                yield export.name, ""
            yield from ((export.name, initiator) for initiator in self._kernel.ending(export.name))


def _places(document: Document, name: str, initiator: str) -> Iterator[tuple[int, int]]:
    """Yield HBA and LUN of each disk that an initiator sees; all disks of the export without an initiator."""
    export = document.export(name)
    if export is None:
        return
    entry = next((each for each in export.initiators if each.name == initiator), None)
    for lun in export.luns:
        place = document.place_of(lun.backstore)
        if place is not None and (entry is None or entry.luns is None or lun.lun in entry.luns):
            yield place
