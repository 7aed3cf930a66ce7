"""How everything is, as the running service tells it: the kernel's and the engines' side, and what is wanted.

What is wanted and not there is shown with the reason; what is there and not the service's own (an HBA
of vscsitarget) is shown as it is.
"""

import os
from collections.abc import Mapping

from vscsihba.config.frame_changes import layers
from vscsihba.config.model import Document, Hba, Lun
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
    return {"daemon": {"pid": os.getpid(), "since": since}, "hbas": hbas, "others": found["others"]}


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
    return {
        "lun": lun.lun,
        "backstore": lun.backstore,
        "device": None,
        "by_id": None,
        "size": size_of(stack),
        "stack": layers(stack),
        "engine": None,
        "iops": None,
        "state": "not there",
        "read_only": lun.read_only,
    }
