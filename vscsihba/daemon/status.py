"""The status that the running service reports: the kernel, the engines, and the running document.

A disk of the document that is missing is shown with the reason. HBAs that the service does not manage, such
as those of vscsitarget, are shown too.
"""

import os
from collections.abc import Iterable, Mapping
from typing import cast

from vscsihba.config.frame_changes import layers
from vscsihba.config.model import Document, Hba, Lun
from vscsihba.config.salvage import Unread
from vscsihba.config.sizes import size_of
from vscsihba.daemon.calls import ExportStatus, HbaStatus, LunStatus, Status
from vscsihba.daemon.hba_engines import HbaEngines
from vscsihba.daemon.kernel_status import kernel_status
from vscsihba.daemon.rates import Rates


def status(document: Document, engines: Mapping[int, HbaEngines], rates: Rates, since: float) -> Status:
    """Return the state of all disks, engines and problems.

    Args:
        document: The running document.
        engines: The engines of each HBA.
        rates: The counters of the last call.
        since: Start of the service, in seconds since 1970.
    """
    now = kernel_status(rate=rates.of)
    shown = {hba["id"]: hba for hba in now["hbas"]}
    for hba in document.hbas:
        entry = shown.setdefault(hba.id, {"id": hba.id, "engines": [], "luns": []})
        _complete(entry, hba, document, engines[hba.id].failures if hba.id in engines else {})
    hbas = [hba for _, hba in sorted(shown.items())]
    return {**now, "daemon": {"pid": os.getpid(), "since": since}, "hbas": hbas}


def add_unread(now: Status, unread: Iterable[Unread]) -> None:
    """Add the saved entries that are not restored: LUNs to their HBA, the others as problems."""
    hbas = {hba["id"]: hba for hba in now["hbas"]}
    for entry in unread:
        if entry.hba is None or entry.lun is None:
            now["problems"].append(f"not restored: {entry.why}")
            continue
        hba = hbas.setdefault(entry.hba, {"id": entry.hba, "engines": [], "luns": []})
        state = f"failing: {entry.why}"
        hba["luns"] = [lun for lun in hba["luns"] if lun["lun"] != entry.lun]
        hba["luns"].append(_unserved(entry.lun, entry.backstore, state))
        hba["luns"].sort(key=lambda lun: lun["lun"])
    now["hbas"] = [hba for _, hba in sorted(hbas.items())]


def add_exports(now: Status, exports: Iterable[ExportStatus]) -> None:
    """Add the state of the exports, which are then no targets of other programs."""
    now["exports"] = list(exports)
    ours = {f"iscsi/{export['name']}" for export in now["exports"]}
    now["others"] = [each for each in now["others"] if each["kind"] != "target" or each["name"] not in ours]


def _complete(shown: HbaStatus, hba: Hba, document: Document, failures: Mapping[int, str]) -> None:
    """Add the LUNs of the document: the name of each one's backstore, and why it is missing or fails."""
    luns = {lun["lun"]: lun for lun in shown["luns"]}
    for lun in hba.luns:
        entry = luns.setdefault(lun.lun, _missing(lun, document))
        entry["backstore"] = lun.backstore
        if lun.lun in failures:
            entry["state"] = f"failing: {failures[lun.lun]}"
    shown["luns"] = [lun for _, lun in sorted(luns.items())]


def _missing(lun: Lun, document: Document) -> LunStatus:
    stack = document.backstores[lun.backstore]
    unserved = _unserved(lun.lun, lun.backstore, "missing")
    known = {"size": size_of(stack), "stack": layers(stack), "read_only": lun.read_only, "local": lun.local}
    return cast("LunStatus", {**unserved, **known})


def _unserved(number: int, backstore: str | None, state: str) -> LunStatus:
    return {
        "lun": number,
        "backstore": backstore,
        "local": True,
        "device": None,
        "by_id": None,
        "size": None,
        "stack": None,
        "engine": None,
        "iops": None,
        "state": state,
        "read_only": False,
        "reservation": None,
    }
