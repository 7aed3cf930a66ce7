"""Checks of the service, of the saved configuration, and of targetctl, which could restore disks too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.doctor.exports import check_asked_exports
from vscsihba.cli.doctor.finding import Finding
from vscsihba.config.load import load, read
from vscsihba.config.model import Document
from vscsihba.configfs.names import SUBTYPE
from vscsihba.daemon import state
from vscsihba.daemon.calls import Daemon, NoDaemonError
from vscsihba.errors import VscsihbaError
from vscsihba.units import counted

TARGETCTL: Final = (Path("/etc/target/saveconfig.json"), Path("/etc/rtslib-fb-target/saveconfig.json"))
"""Files that LIO's own service restores at boot; the second is Debian's."""


def check_service() -> Iterator[Finding]:
    """Yield findings about the service and the saved configuration."""
    running, finding = _service()
    yield finding
    saved, finding = _saved(running)
    yield finding
    if running is not None:
        yield from check_asked_exports(running, "running")
    if saved is not None and (running is None or saved.exports != running.exports):
        yield from check_asked_exports(saved, "saved")
    yield from _targetctl()


def _service() -> tuple[Document | None, Finding]:
    """Return the running configuration, and the finding about the service."""
    try:
        running = read(Daemon().show(), Path("/"))
    except NoDaemonError as error:
        return None, Finding("service", "note", "not running", error.cure)
    except VscsihbaError as error:
        return None, Finding("service", "problem", error.message, error.cure)
    return running, Finding("service", "ok", f"running, with {_count(running)}")


def _saved(running: Document | None) -> tuple[Document | None, Finding]:
    """Return the saved configuration, and the finding about it."""
    title = "saved"
    if not state.SAVED.exists():
        if running is None or running.empty:
            return None, Finding(title, "ok", "nothing, and no disks run")
        return None, Finding(
            title, "note", "nothing: the next start restores no disks", 'to save them: "vscsihba save"'
        )
    try:
        saved = load(state.SAVED)
    except VscsihbaError as error:
        cure = "correct it, or restore one of the older versions beside it"
        return None, Finding(title, "problem", f"{state.SAVED}: {error.message}", error.cure or cure)
    if running is not None and running != saved:
        text = f"{_count(saved)}, which differ from the running configuration"
        return saved, Finding(
            title, "note", text, 'to save what runs: "vscsihba save"; to see the difference: "vscsihba plan"'
        )
    return saved, Finding(title, "ok", f"{_count(saved)} in {state.SAVED}")


def _targetctl() -> Iterator[Finding]:
    """Yield warnings about disks in LIO's own configuration, which creates them without an engine."""
    for file in TARGETCTL:
        if ours := _ours_in(file):
            yield Finding(
                "targetctl",
                "warning",
                f"{file} has {', '.join(ours)}: at the next boot, targetctl creates them without an engine",
                'remove them and their targets there, or run "targetctl save" while no disk of vscsihba runs',
            )


def _ours_in(file: Path) -> list[str]:
    """Return the names of our backstores that LIO's own service would create; none if it has no such file."""
    try:
        saved: Any = json.loads(file.read_bytes())
        objects = saved["storage_objects"]
        return [made["name"] for made in objects if str(made.get("config")).startswith(f"{SUBTYPE}/")]
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return []


def _count(document: Document) -> str:
    luns = sum(len(hba.luns) for hba in document.hbas)
    return f"{counted(len(document.hbas), 'HBA')} and {counted(luns, 'LUN')}"
