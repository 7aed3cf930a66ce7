"""Targets of exports on a simulated machine: a dictionary whose changes fail, or are cut short by a kill."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from tests.sim.calls import Calls
from tests.sim.faults import REFUSED
from vscsihba.configfs import IscsiTarget, Session
from vscsihba.errors import HostError

FAULTS: Final = {"target": (REFUSED,)}
"""What a change of a target can fail with."""


class Targets:
    """The kernel's targets, as `vscsihba.daemon.exports.Kernel`; a change is two calls.

    Args:
        calls: Counts the calls, and lets them fail.
        backstores: Returns the names of the backstores in the kernel.

    Attributes:
        found: By name.
    """

    def __init__(self, calls: Calls, backstores: Callable[[], Collection[str]]) -> None:
        self.found: dict[str, IscsiTarget] = {}
        self._calls = calls
        self._backstores = backstores

    def prepare(self) -> None:
        """Do nothing: these targets need no modules."""

    def find(self, name: str) -> IscsiTarget | None:
        """Return a target, None if there is none of that name."""
        return self.found.get(name)

    def change(self, before: IscsiTarget | None, after: IscsiTarget | None) -> None:
        """Change a target; a failure changes nothing, and a kill leaves half of it."""
        target = after or before
        assert target is not None
        assert self.found.get(target.name) == before
        for part in ("begins", "ends"):
            if self._calls.enter("target", f"change of {target.name} {part}"):
                self._set(target.name, before)
                raise HostError("refused")
            half = replace(target, luns={}, acls={}, portals=frozenset())
            self._set(target.name, half if part == "begins" else after)

    def _set(self, name: str, target: IscsiTarget | None) -> None:
        if target is None:
            self.found.pop(name, None)
            return
        assert set(target.luns.values()) <= set(self._backstores()), "a LUN without a backstore"
        self.found[name] = target

    def sessions(self, _name: str) -> list[Session]:
        """Return no sessions."""
        return []

    def has_backstore(self, name: str) -> bool:
        """Return whether a backstore exists."""
        return name in self._backstores()
