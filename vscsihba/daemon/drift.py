"""Drift: stacks that engines have changed while no service ran.

You can add a leg to a mirror without a service; then only the engine that serves the disk knows of it, and
no document does. This compares documents with the answers of engines, and changes nothing.
"""

import logging
from collections.abc import Sequence

from vscsihba.config.model import Document, Hba, StackDocument
from vscsihba.config.sizes import same_but_for_size
from vscsihba.config.stacks import canonical
from vscsihba.daemon.engine_pool import EngineHandle
from vscsihba.errors import VscsihbaError
from vscsihba.handlers.registry import Registry

log = logging.getLogger(__name__)


def drifted_stacks(
    document: Document, hba: Hba, engines: Sequence[EngineHandle], cut_off: Document
) -> dict[str, StackDocument]:
    """Return the stacks of an HBA that differ from the document, by the backstore's name.

    Args:
        document: The document that ran when the last service ended.
        hba: One of its HBAs.
        engines: The engines of the HBA.
        cut_off: The target of a change that the last service did not finish; its stacks are no drift.
    """
    documented = [*document.backstores.values(), *cut_off.backstores.values()]
    served = served_stacks(engines)
    drifted = {}
    for lun in hba.luns:
        stack = served.get(lun.lun)
        # The stack of another backstore: the last service ended while it replaced the disk.
        if stack is not None and not any(same_but_for_size(stack, each) for each in documented):
            log.info("the stack of %s has changed while no service ran", lun.backstore)
            drifted[lun.backstore] = stack
    return drifted


def served_stacks(engines: Sequence[EngineHandle]) -> dict[int, StackDocument]:
    """Return the canonical stack of each LUN that one of the engines owns, by number."""
    return {number: stack for engine in engines for number, stack in _served(engine).items()}


def _served(engine: EngineHandle) -> dict[int, StackDocument]:
    """Return the canonical stack of each LUN that an engine owns; nothing if it does not answer."""
    registry = Registry()
    try:
        luns = engine.ask("status", {})["luns"]
        return {lun["lun"]: canonical(lun["document"], registry) for lun in luns if lun["owner"]}
    except VscsihbaError as error:
        log.warning("engine %d does not report its LUNs: %s", engine.pid, error)
        return {}
