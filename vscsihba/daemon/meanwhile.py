"""What has become of disks while there was no service: engines were asked by others, and layers have changed.

A leg that was added to a mirror stands in no document of the service then, only in the engine that
serves the disk. Looks at engines' answers, and changes nothing.
"""

import logging
from collections.abc import Sequence

from vscsihba.config.model import Document, Hba, StackDocument
from vscsihba.config.sizes import same_but_for_size
from vscsihba.config.stacks import canonical
from vscsihba.daemon.roster import Member
from vscsihba.errors import VscsihbaError
from vscsihba.handlers.registry import Registry

log = logging.getLogger(__name__)


def changed_meanwhile(
    document: Document, hba: Hba, engines: Sequence[Member], cut_off: Document
) -> dict[str, StackDocument]:
    """Return the backstores of an HBA that are made of something else by now, by name.

    Args:
        document: What ran when the last service ended.
        hba: One of its HBAs.
        engines: Those that serve it.
        cut_off: What changes were to lead to that the last service did not finish: no disk of it is meant.
    """
    others = [*document.backstores.values(), *cut_off.backstores.values()]
    served = served_stacks(engines)
    found = {}
    for lun in hba.luns:
        stack = served.get(lun.lun)
        # Where it is that of another backstore, the last service ended while it replaced the disk.
        if stack is not None and not any(same_but_for_size(stack, each) for each in others):
            log.info("%s has been changed while no service ran", lun.backstore)
            found[lun.backstore] = stack
    return found


def served_stacks(engines: Sequence[Member]) -> dict[int, StackDocument]:
    """Return the canonical stack of each LUN that one of some engines serves, by number."""
    return {number: stack for engine in engines for number, stack in _served(engine).items()}


def _served(engine: Member) -> dict[int, StackDocument]:
    """Return what an engine's own LUNs are made of; nothing if it does not answer."""
    registry = Registry()
    try:
        luns = engine.ask("status", {})["luns"]
        return {lun["lun"]: canonical(lun["document"], registry) for lun in luns if lun["owner"]}
    except VscsihbaError as error:
        log.warning("engine %d does not say what it serves: %s", engine.pid, error)
        return {}
