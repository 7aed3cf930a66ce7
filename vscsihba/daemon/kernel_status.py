"""The status without a service: the kernel's objects of vscsihba, and the status of each engine.

It has the same form as the service's answer. Engines are found by their control sockets; one that does not
answer in time is shown as such.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from vscsihba import configfs
from vscsihba.config.frame_changes import layers
from vscsihba.configfs import paths
from vscsihba.control.client import NotListeningError, call
from vscsihba.daemon.calls import EngineStatus, HbaStatus, LunStatus, ReservationStatus, Status
from vscsihba.engine.owner import control_sockets
from vscsihba.engine.owning.locks import RUN, pid_of
from vscsihba.errors import VscsihbaError

_PATIENCE: Final = 5.0
"""Seconds for an engine to answer."""

_SECTOR: Final = 512
"""Bytes of the sectors in which /sys gives the size of every disk."""


Rate = Callable[[int, int, dict[str, int]], float | None]
"""Returns the commands a second of a LUN; its arguments are the HBA, the LUN, and its counters."""


def _no_rate(_hba_id: int, _lun: int, _counters: dict[str, int]) -> None:
    """Return None: a rate needs an earlier reading."""


def kernel_status(run: Path = RUN, rate: Rate = _no_rate) -> Status:
    """Return the state of all disks and engines.

    Args:
        run: Directory of the engines' sockets.
        rate: Returns the commands a second of a LUN.
    """
    observed = configfs.observe()
    return {
        "problems": [],
        "daemon": None,
        "hbas": [_hba(hba, observed, run, rate) for _, hba in sorted(observed.hbas.items())],
        "exports": [],
        "others": [
            {"kind": each.kind, "name": each.name, "text": each.text} for each in configfs.foreign_objects()
        ],
    }


def _hba(hba: configfs.Hba, observed: configfs.Observed, run: Path, rate: Rate) -> HbaStatus:
    """Return the state of an HBA."""
    answers = list(_ask_engines(hba.id, run))
    reports = {
        lun["lun"]: (engine["pid"], lun)
        for engine, answer in answers
        for lun in answer.get("luns", [])
        if lun["owner"] or lun["failure"]
    }
    luns = [_lun(lun, *reports.get(number, (None, {}))) for number, lun in sorted(hba.luns.items())]
    for lun in luns:
        if lun["lun"] in reports and "counters" in (answer := reports[lun["lun"]][1]):
            lun["iops"] = rate(hba.id, lun["lun"], answer["counters"])
        lun["reservation"] = _reservation(hba.luns[lun["lun"]], observed)
    return {"id": hba.id, "engines": [engine for engine, _ in answers], "luns": luns}


def _ask_engines(hba_id: int, run: Path) -> Iterator[tuple[EngineStatus, dict[str, Any]]]:
    """Yield every running engine of an HBA, and its status."""
    for path in control_sockets(hba_id, run):
        pid = pid_of(path)
        try:
            answer = cast("dict[str, Any]", call(path, "status", timeout=_PATIENCE))
        except NotListeningError:
            continue
        except VscsihbaError:
            yield {"pid": pid, "state": "not answering", "since": path.stat().st_mtime}, {}
        else:
            yield {"pid": pid, "state": "running", "since": answer["since"]}, answer


def _lun(lun: configfs.Lun, engine: int | None, report: dict[str, Any]) -> LunStatus:
    """Return the state of a LUN.

    Args:
        lun: The kernel's object.
        engine: Pid of its owner.
        report: The LUN in the owner's status.
    """
    block = paths.SYSFS / "class/block" / (lun.disk.name if lun.disk is not None else "-")
    sectors = paths.read_int(block / "size")
    return {
        "lun": lun.number,
        "backstore": lun.backstore,
        "local": lun.local,
        "device": None if lun.disk is None else str(lun.disk),
        "by_id": _by_id(lun),
        "size": report.get("size") if sectors is None else sectors * _SECTOR,
        "stack": layers(report["document"]) if isinstance(report.get("document"), dict) else None,
        "engine": engine,
        "iops": None,
        "state": _state(lun, engine, report),
        "read_only": paths.read_int(block / "ro") == 1 if lun.local else bool(report.get("read_only")),
        "reservation": None,
    }


def _reservation(lun: configfs.Lun, observed: configfs.Observed) -> ReservationStatus | None:
    backstore = observed.backstores.get(lun.backstore or "")
    found = None if backstore is None else configfs.reservation_of(backstore.index, backstore.name)
    if found is None:
        return None
    return {"registrants": list(found.registrants), "type": found.type, "holder": found.holder}


def _state(lun: configfs.Lun, engine: int | None, report: dict[str, Any]) -> str:
    if lun.backstore is None:
        return "incomplete"
    if not lun.complete:
        return "no SCSI device"
    if engine is None:
        return "not served"
    return "running" if report.get("failure") is None else f"failing: {report['failure']}"


def _by_id(lun: configfs.Lun) -> str | None:
    links = configfs.links_of(lun.disk) if lun.disk is not None else ()
    return next((str(link) for link in links if link.parent.name == "by-id"), None)
