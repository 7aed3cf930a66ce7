"""The kernel's iSCSI targets as a dictionary."""

from vscsihba.configfs import IscsiTarget, Session
from vscsihba.errors import HostError


class Targets:
    """The kernel's targets.

    Attributes:
        found: By name.
        backstores: Names of the backstores that are served; None for all.
        logged_in: The sessions of every target.
        refuse: The error of every change.
    """

    def __init__(self) -> None:
        self.found: dict[str, IscsiTarget] = {}
        self.backstores: set[str] | None = None
        self.logged_in: list[Session] = []
        self.refuse: HostError | None = None
        self.changed = 0

    def prepare(self) -> None:
        """Do nothing: a dictionary needs no modules."""

    def find(self, name: str) -> IscsiTarget | None:
        return self.found.get(name)

    def change(self, before: IscsiTarget | None, after: IscsiTarget | None) -> None:
        if self.refuse is not None:
            raise self.refuse
        assert before is None or self.found[before.name] == before
        self.changed += before != after
        if after is not None:
            assert all(map(self.has_backstore, after.luns.values()))
            self.found[after.name] = after
        elif before is not None:
            del self.found[before.name]

    def sessions(self, name: str) -> list[Session]:
        return self.logged_in if name in self.found else []

    def has_backstore(self, name: str) -> bool:
        return self.backstores is None or name in self.backstores
