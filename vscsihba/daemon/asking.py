"""Questions to the engines of an HBA, any of which may die while it is asked.

Knows who is asked, and in which order; what is asked for is its caller's business.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from vscsihba.control.client import NoAnswerError
from vscsihba.daemon.roster import Member, Roster
from vscsihba.errors import HostError

log = logging.getLogger(__name__)

DEAD: Final = object()
"""For the answer of an engine that has ended."""


class Asking:
    """Asks the engines of an HBA; with the roster's lock held.

    Args:
        hba_id: 0..255.
        roster: Its engines.
    """

    def __init__(self, hba_id: int, roster: Roster) -> None:
        self._id = hba_id
        self._roster = roster

    def in_order(self, lun: int) -> list[Member]:
        """Return the engines, first the one that is to own a LUN (`vscsihba.engine.share`).

        Raises:
            UsageError, HostError: There is none, and none can be started.
        """
        self._roster.bury()
        if not self._roster.members:
            self._roster.fill()
        newcomers = self._roster.newcomers
        everybody = self._roster.members
        members = [member for member in everybody if member not in newcomers] or everybody
        at = lun % len(members)
        return members[at:] + members[:at]

    def all(self, verb: str, arguments: Mapping[str, object], lun: int, told: list[Member]) -> None:
        """Ask every engine; one that dies meanwhile is passed over, for its successor will be told.

        Args:
            verb: What.
            arguments: Its arguments.
            lun: What it is about.
            told: Those that have done it are put here, and one that may have, since it did not answer.

        Raises:
            UsageError, HostError: One refuses, or all of them die.
        """
        for member in self.in_order(lun):
            try:
                answer = self.one(member, verb, arguments)
            except NoAnswerError:
                told.append(member)
                raise
            if answer is not DEAD:
                told.append(member)
        if not told:
            raise HostError(f"every engine of HBA {self._id} ended meanwhile", cure="its log says why")

    def one(self, member: Member, verb: str, arguments: Mapping[str, object]) -> Any:
        """Ask an engine; `DEAD` if it has ended meanwhile.

        Raises:
            UsageError, HostError: It refuses.
        """
        try:
            return member.ask(verb, arguments)
        except HostError:
            if member.alive:
                raise
            log.warning("engine %d of HBA %d ended while it was asked to %s", member.pid, self._id, verb)
            return DEAD
