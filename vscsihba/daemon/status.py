"""How everything is, as the running service tells it: the kernel's and the engines' side, and what is wanted.

What is wanted and not there is shown with the reason; what is there and not the service's own (an HBA
of vscsitarget) is shown as it is.
"""

import os
from collections.abc import Iterable, Mapping

from vscsihba.config.frame_changes import layers
from vscsihba.config.model import Document, Hba, Lun
from vscsihba.config.salvage import Unread
from vscsihba.config.sizes import size_of
from vscsihba.daemon.calls import HbaStatus, LunStatus, Status
from vscsihba.daemon.crew import Crew
from vscsihba.daemon.kernel_status import kernel_status
from vscsihba.daemon.rates import Rates


def status(document: Document, crews: Mapping[int, Crew], rates: Rates, since: float) -> Status:
    """Return how everything is.

    Args:
        document: What is to run.
        crews: The engines of each HBA.
        rates: Knows the counters of the last look.
        since: When the service began, in seconds since 1970.
    """
    found = kernel_status(rate=rates.of)
    there = {hba["id"]: hba for hba in found["hbas"]}
    for hba in document.hbas:
        shown = there.setdefault(hba.id, {"id": hba.id, "engines": [], "luns": []})
        crew = crews.get(hba.id)
        _complete(shown, hba, document, crew.failures if crew is not None else {})
    hbas = [hba for _, hba in sorted(there.items())]
    return {**found, "daemon": {"pid": os.getpid(), "since": since}, "hbas": hbas}


def add_unread(found: Status, unread: Iterable[Unread]) -> None:
    """Say which saved entries are not restored, and why: LUNs where they belong, the rest as problems."""
    hbas = {hba["id"]: hba for hba in found["hbas"]}
    for entry in unread:
        if entry.hba is None or entry.lun is None:
            found["problems"].append(f"not restored: {entry.why}")
            continue
        hba = hbas.setdefault(entry.hba, {"id": entry.hba, "engines": [], "luns": []})
        state = f"failing: {entry.why}"
        hba["luns"] = [lun for lun in hba["luns"] if lun["lun"] != entry.lun]
        hba["luns"].append(_unserved(entry.lun, entry.backstore, state))
        hba["luns"].sort(key=lambda lun: lun["lun"])
    found["hbas"] = [hba for _, hba in sorted(hbas.items())]


def _complete(shown: HbaStatus, hba: Hba, document: Document, failures: Mapping[int, str]) -> None:
    """Say of the LUNs that are wanted what they are called, and why they are not there."""
    luns = {lun["lun"]: lun for lun in shown["luns"]}
    for lun in hba.luns:
        entry = luns.setdefault(lun.lun, _missing(lun, document))
        entry["backstore"] = lun.backstore
        if lun.lun in failures:
            entry["state"] = f"failing: {failures[lun.lun]}"
    shown["luns"] = [lun for _, lun in sorted(luns.items())]


def _missing(lun: Lun, document: Document) -> LunStatus:
    stack = document.backstores[lun.backstore]
    found = _unserved(lun.lun, lun.backstore, "not there")
    return {**found, "size": size_of(stack), "stack": layers(stack), "read_only": lun.read_only}


def _unserved(number: int, backstore: str | None, state: str) -> LunStatus:
    return {
        "lun": number,
        "backstore": backstore,
        "device": None,
        "by_id": None,
        "size": None,
        "stack": None,
        "engine": None,
        "iops": None,
        "state": state,
        "read_only": False,
    }
