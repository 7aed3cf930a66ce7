"""Conflicts between disks that are removed and disks that are added: the same file, backstore or name."""

from collections import defaultdict
from collections.abc import Mapping

from vscsihba.config.model import Document, Lun
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack_paths import uses

Place = tuple[int, int]
"""The id of an HBA and the number of a LUN."""


def conflicting(
    running: Document,
    target: Document,
    removed: Mapping[Place, Lun],
    added: Mapping[Place, Lun],
    registry: Registry,
) -> frozenset[Place]:
    """Return the removed LUNs that must be gone before an added one can be created.

    Args:
        running: The document with the stacks of `removed`.
        target: The document with the stacks of `added`.
        removed: LUNs that are removed or replaced.
        added: LUNs that are added or replaced.
        registry: The known handlers.
    """
    needed: dict[str, set[Place]] = defaultdict(set)
    for place, lun in added.items():
        for resource in _resources(lun, target, registry):
            needed[resource].add(place)
    return frozenset(
        place
        for place, lun in removed.items()
        if any(needed[resource] - {place} for resource in _resources(lun, running, registry))
        or _changes_backstore(lun, added.get(place), running, target)
    )


def _resources(lun: Lun, document: Document, registry: Registry) -> list[str]:
    """Return resources that only one LUN can have: backstore, names, and files that it writes or locks."""
    stack = document.backstores[lun.backstore]
    names = [f"{key} {name}" for key, name in (("serial", lun.serial), ("wwn", lun.wwn)) if name is not None]
    return [f"backstore {lun.backstore}", *names, *(f"file {use.path}" for use in uses(stack, registry))]


def _changes_backstore(old: Lun, new: Lun | None, running: Document, target: Document) -> bool:
    """Return whether the backstore of a LUN changes although the LUN no longer shows it."""
    if new is not None and new.backstore == old.backstore:
        return False
    stack = target.backstores.get(old.backstore)
    return stack is not None and stack != running.backstores[old.backstore]
