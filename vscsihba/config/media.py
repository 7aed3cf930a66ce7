"""Which disks stand in each other's way: made of the same files, or of the same backstore, or of one name."""

from collections import defaultdict
from collections.abc import Mapping

from vscsihba.config.model import Document, Lun
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack_paths import uses

Place = tuple[int, int]
"""The id of an HBA and the number of a LUN."""


def in_the_way(
    running: Document,
    target: Document,
    going: Mapping[Place, Lun],
    coming: Mapping[Place, Lun],
    registry: Registry,
) -> frozenset[Place]:
    """Return those of the LUNs that go which must be gone before any of the others can come.

    Args:
        running: Says what is behind `going`.
        target: Says what is behind `coming`.
        going: LUNs that are removed or replaced.
        coming: LUNs that are added or replaced.
        registry: Where handlers come from.
    """
    needed: dict[str, set[Place]] = defaultdict(set)
    for place, lun in coming.items():
        for thing in _things(lun, target, registry):
            needed[thing].add(place)
    return frozenset(
        place
        for place, lun in going.items()
        if any(needed[thing] - {place} for thing in _things(lun, running, registry))
        or _described_anew(lun, coming.get(place), running, target)
    )


def _things(lun: Lun, document: Document, registry: Registry) -> list[str]:
    """Return what only one LUN can have at a time: backstore, names, and files that it writes or locks."""
    stack = document.backstores[lun.backstore]
    names = [f"{key} {name}" for key, name in (("serial", lun.serial), ("wwn", lun.wwn)) if name is not None]
    return [f"backstore {lun.backstore}", *names, *(f"file {use.path}" for use in uses(stack, registry))]


def _described_anew(old: Lun, new: Lun | None, running: Document, target: Document) -> bool:
    """Tell whether the backstore of a LUN becomes another one without it."""
    if new is not None and new.backstore == old.backstore:
        return False
    stack = target.backstores.get(old.backstore)
    return stack is not None and stack != running.backstores[old.backstore]
