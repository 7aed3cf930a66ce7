"""Planning: from what is in the kernel to what is wanted, as an ordered list of steps.

Pure: looks at values and returns values. The order of a plan is the kernel's (a ring is
served before a LUN is linked to it, a LUN is unlinked before its backstore goes) and the
user's: what is new is made first, so that a failure there disturbs nobody, and only then
is anything taken away or replaced.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vscsihba.configfs.found import Backstore, Hba, Lun, Observed
from vscsihba.configfs.model import LIVE_FIELDS, Layout
from vscsihba.configfs.names import wwn_of
from vscsihba.configfs.steps import (
    CreateBackstore,
    CreateHba,
    DeleteBackstore,
    DeleteHba,
    LinkLun,
    Release,
    Resize,
    Serve,
    SetAttribute,
    Step,
    UnlinkLun,
)
from vscsihba.errors import InUseError


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order.

    Attributes:
        steps: The steps.
        replaced: Backstores that differ in something that the kernel cannot change: they are removed and
            made anew, and their disks vanish for a moment. A caller may want to refuse that.
    """

    steps: tuple[Step, ...]
    replaced: frozenset[str] = frozenset()


def plan(observed: Observed, wanted: Layout, *, unserved: Collection[str] = ()) -> Plan:
    """Return the steps that lead from `observed` to exactly `wanted`.

    Args:
        observed: What is there; everything in it that is not in `wanted` is removed, so give it as
            ``wanted`` too (`Layout.updated`) what shall stay.
        wanted: What shall be there.
        unserved: Backstores that nobody serves, after a crash: those that stay are served first of all,
            the others are taken away without waiting for an answer.

    Raises:
        InUseError: A wanted HBA's target is somebody else's.
    """
    for hba_id in wanted.hbas:
        if hba_id in observed.foreign:
            raise InUseError(f"HBA id {hba_id} is in use: target {wwn_of(hba_id)} is somebody else's")
    return _Planner(observed, wanted, frozenset(unserved)).plan()


class _Planner:
    """One planning: the parts of the plan, each a generator of steps."""

    def __init__(self, observed: Observed, wanted: Layout, unserved: frozenset[str]) -> None:
        self._observed = observed
        self._wanted = wanted
        self._unserved = unserved
        self._replaced = frozenset(
            name for name, found in observed.backstores.items() if self._differs(found)
        )
        half_made = {name for name, found in observed.backstores.items() if not found.enabled}
        kept = {name for name in observed.backstores if name in wanted.backstores}
        self._kept = kept - self._replaced - half_made

    def plan(self) -> Plan:
        steps = (
            *self._adoptions(),
            *self._creations(self._wanted.backstores.keys() - self._observed.backstores.keys()),
            *self._changes(),
            *self._hba_creations(),
            *self._links(fresh=True),
            *self._unlinks(),
            *self._hba_deletions(),
            *self._deletions(),
            *self._creations(self._wanted.backstores.keys() & self._observed.backstores.keys() - self._kept),
            *self._links(fresh=False),
        )
        return Plan(steps, self._replaced)

    def _differs(self, found: Backstore) -> bool:
        """Tell whether a backstore has to be made anew to be as wanted."""
        wanted = self._wanted.backstores.get(found.name)
        if wanted is None or not found.enabled:
            return False
        return bool(found.differences(wanted) - LIVE_FIELDS)

    def _adoptions(self) -> Iterator[Step]:
        for name in sorted(self._kept & self._unserved):
            yield Serve(name, adopted=True)

    def _creations(self, names: Collection[str]) -> Iterator[Step]:
        for name in sorted(names):
            yield CreateBackstore(self._wanted.backstores[name])
            yield Serve(name)

    def _changes(self) -> Iterator[Step]:
        for name in sorted(self._kept):
            found, wanted = self._observed.backstores[name], self._wanted.backstores[name]
            for field in sorted(found.differences(wanted)):
                old, new = getattr(found.spec, field), getattr(wanted, field)
                yield (
                    Resize(name, old, new)
                    if field == "size"
                    else SetAttribute(name, field, int(old), int(new))
                )

    def _hba_creations(self) -> Iterator[Step]:
        for hba_id in sorted(self._wanted.hbas):
            found = self._observed.hbas.get(hba_id)
            if found is None or not found.complete:
                yield CreateHba(hba_id, half_made=found is not None)

    def _links(self, *, fresh: bool) -> Iterator[Step]:
        """Yield the links to make: those that disturb nothing (`fresh`), or those that wait for a removal."""
        for hba_id, hba in sorted(self._wanted.hbas.items()):
            for lun, name in sorted(hba.luns.items()):
                if not self._stays(hba_id, lun) and self._is_fresh(hba_id, lun, name) == fresh:
                    yield LinkLun(hba_id, lun, name)

    def _is_fresh(self, hba_id: int, lun: int, name: str) -> bool:
        found = self._observed.hbas.get(hba_id)
        free = found is None or lun not in found.luns
        return free and (name in self._kept or name not in self._observed.backstores)

    def _stays(self, hba_id: int, lun: int) -> bool:
        """Tell whether a LUN is there and leads where it shall."""
        found, wanted = self._observed.hbas.get(hba_id), self._wanted.hbas.get(hba_id)
        if found is None or wanted is None or not found.complete or lun not in found.luns:
            return False
        name = found.luns[lun].backstore
        return found.luns[lun].complete and wanted.luns.get(lun) == name and name in self._kept

    def _unlinks(self) -> Iterator[Step]:
        for hba_id, hba in sorted(self._observed.hbas.items()):
            for number, lun in sorted(hba.luns.items()):
                if not self._stays(hba_id, number):
                    served = self._is_served(lun.backstore)
                    yield UnlinkLun(hba_id, number, lun.backstore, served, revive=self._is_alive(hba, lun))

    def _is_served(self, name: str | None) -> bool:
        """Tell whether a ring is served when its LUN goes: it was, or this plan has seen to it."""
        found = self._observed.backstores.get(name) if name is not None else None
        return found is not None and found.enabled and (name not in self._unserved or name in self._kept)

    def _is_alive(self, hba: Hba, lun: Lun) -> bool:
        return hba.complete and lun.complete and self._is_served(lun.backstore)

    def _hba_deletions(self) -> Iterator[Step]:
        for hba_id, hba in sorted(self._observed.hbas.items()):
            if hba_id not in self._wanted.hbas:
                alive = any(self._is_alive(hba, lun) for lun in hba.luns.values())
                yield DeleteHba(hba_id, revive=alive or (hba.complete and not hba.luns))

    def _deletions(self) -> Iterator[Step]:
        for name, found in sorted(self._observed.backstores.items()):
            if name in self._kept:
                continue
            served = self._is_served(name)
            if served:
                yield Release(name)
            yield DeleteBackstore(name, found.spec if served else None)
