"""Whether the LUNs of a trace are served: a LUN that moves to another engine has a few seconds for that."""

from collections.abc import Collection
from typing import Final

from vscsihba.capture.feed import Place
from vscsihba.errors import HostError

HANDOVER: Final = 5.0
"""Seconds without an engine, after which a LUN counts as gone."""

START: Final = 1.0
"""Seconds in which the first LUN has to be found."""


class Presence:
    """The LUNs of a trace, as they come and go.

    Args:
        luns: The LUNs; None: all that are found.
        follow: Wait for LUNs that are not served, without a limit.
        now: Present time, in seconds of any clock.
    """

    def __init__(self, luns: Collection[Place] | None, *, follow: bool, now: float) -> None:
        self._wanted = None if luns is None else frozenset(luns)
        self._follow = follow
        self._began = now
        self._last: dict[Place, float] = {}
        self._gone: set[Place] = set()

    def update(self, served: Collection[Place], now: float) -> list[str]:
        """Note which LUNs are served now.

        Returns:
            A line for each LUN that is gone since the last call, or is back.

        Raises:
            HostError: No LUN is left, or there was none, and nobody wants to wait.
        """
        notices = [f"{_name(place)} is served again" for place in sorted(self._gone & set(served))]
        self._gone -= set(served)
        for place in served:
            self._last[place] = now
        if not self._follow and now - self._began > START:
            self._check_found()
        for place, last in sorted(self._last.items()):
            if place not in self._gone and now - last > HANDOVER:
                self._gone.add(place)
                notices.append(f"{_name(place)} is no longer served")
        if not self._follow and self._last and self._gone >= set(self._last):
            raise HostError(
                "; ".join(notices) or "no disk is served any longer", cure="use --follow to wait for it"
            )
        return notices

    def _check_found(self) -> None:
        missing = sorted((self._wanted or set()) - set(self._last))
        if missing:
            raise HostError(
                f"no engine serves {_name(missing[0])}",
                cure='see "vscsihba status", or use --follow to wait for it',
            )
        if not self._last:
            raise HostError(
                "no engine serves a disk", cure='see "vscsihba status", or use --follow to wait for one'
            )


def _name(place: Place) -> str:
    return f"LUN {place[1]} of HBA {place[0]}"
