"""The check-up of the service: does it run, what will the next start restore, who else restores something."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.doctor.finding import Finding
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.configfs.names import SUBTYPE
from vscsihba.daemon import state
from vscsihba.daemon.calls import Daemon, NoDaemonError
from vscsihba.errors import VscsihbaError
from vscsihba.units import counted

TARGETCTL: Final = (Path("/etc/target/saveconfig.json"), Path("/etc/rtslib-fb-target/saveconfig.json"))
"""What LIO's own service restores when the machine starts; the second is Debian's place."""


def check_service() -> Iterator[Finding]:
    """See how it is with the service, and with what is saved."""
    running, finding = _service()
    yield finding
    yield _saved(running)
    yield from _targetctl()


def _service() -> tuple[Document | None, Finding]:
    """Return what runs, and how it is with the service."""
    try:
        running = read(Daemon().show(), Path("/"))
    except NoDaemonError as error:
        return None, Finding("service", "note", "not running", error.cure)
    except VscsihbaError as error:
        return None, Finding("service", "problem", error.message, error.cure)
    return running, Finding("service", "ok", f"running, with {_count(running)}")


def _saved(running: Document | None) -> Finding:
    """Return how it is with what the next start restores."""
    title = "saved"
    if not state.SAVED.exists():
        if running is None or running.empty:
            return Finding(title, "ok", "nothing, and nothing runs")
        return Finding(title, "note", "nothing: the next start makes no disks", 'keep them: "vscsihba save"')
    try:
        saved = load(state.SAVED)
    except VscsihbaError as error:
        cure = "correct it, or take one of the older versions beside it"
        return Finding(title, "problem", f"{state.SAVED}: {error.message}", error.cure or cure)
    if running is not None and running != saved:
        text = f"{_count(saved)}, which is not what runs"
        return Finding(title, "note", text, 'keep what runs: "vscsihba save"; see the other: "vscsihba plan"')
    return Finding(title, "ok", f"{_count(saved)} in {state.SAVED}")


def _targetctl() -> Iterator[Finding]:
    """Tell of disks of ours in the file of LIO's own service, which would make them without a server."""
    for file in TARGETCTL:
        if ours := _ours_in(file):
            yield Finding(
                "targetctl",
                "warning",
                f"{file} has {', '.join(ours)} in it: at the next start of the machine they are made dead",
                'remove them and their targets from it, or "targetctl save" while none of our disks is there',
            )


def _ours_in(file: Path) -> list[str]:
    """Return the names of our backstores that LIO's own service would make; none if it has no such file."""
    try:
        saved: Any = json.loads(file.read_bytes())
        objects = saved["storage_objects"]
        return [made["name"] for made in objects if str(made.get("config")).startswith(f"{SUBTYPE}/")]
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return []


def _count(document: Document) -> str:
    luns = sum(len(hba.luns) for hba in document.hbas)
    return f"{counted(len(document.hbas), 'HBA')} and {counted(luns, 'LUN')}"
