"""Log lines about logins to exports that were refused: one line at a time, however many logins there are."""

import logging
from collections.abc import Callable

from vscsihba import configfs
from vscsihba.config.model import Document
from vscsihba.configfs import Refusals
from vscsihba.units import counted

log = logging.getLogger(__name__)


class RefusedLogins:
    """The refused logins that were logged already, by export.

    Args:
        refusals_of: Returns the refused logins of a target since it was created.
    """

    def __init__(self, refusals_of: Callable[[str], Refusals] = configfs.refusals_of) -> None:
        self._refusals_of = refusals_of
        self._logged: dict[str, int] | None = None

    def look(self, document: Document) -> None:
        """Log the logins to each export that were refused since the last look.

        The first look logs nothing, since an earlier service may have logged the same.
        """
        now = {export.name: self._refusals_of(export.name) for export in document.exports}
        if self._logged is None:
            self._logged = {name: found.count for name, found in now.items()}
        for name, found in now.items():
            before = self._logged.get(name, 0)
            new = found.count - before if found.count >= before else found.count  # the target was made anew
            if new:
                log.warning("export %s: %s refused%s", name, counted(new, "login"), _last(found))
        self._logged = {name: found.count for name, found in now.items()}


def _last(found: Refusals) -> str:
    if not found.initiator:
        return ""
    return f", the last one of {found.initiator} from {found.address}"
