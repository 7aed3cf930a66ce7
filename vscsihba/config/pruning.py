"""What a running document becomes when a wanted one is applied to it: what goes, and what is left alone."""

from typing import Literal

import msgspec

from vscsihba.config.model import Document, Hba
from vscsihba.errors import ConfigError

Prune = Literal["named", "all", "none"]
"""What goes if the wanted document does not have it: LUNs of HBAs that it names; everything; nothing."""


def merge(running: Document, wanted: Document, prune: Prune) -> Document:
    """Return what there is to be.

    Raises:
        ConfigError: A LUN that is left alone shows what a wanted LUN shows too.
    """
    if prune == "all":
        return wanted
    hbas = {hba.id: hba for hba in running.hbas}
    for hba in wanted.hbas:
        hbas[hba.id] = _with_luns(hbas.get(hba.id), hba) if prune == "none" else hba
    target = Document(hbas=tuple(hbas[key] for key in sorted(hbas)))
    _check_shown_once(target, wanted)
    shown = _shown(target)
    lost = frozenset() if prune == "none" else _shown(running) - shown
    backstores = {
        name: stack for name, stack in running.backstores.items() if name not in lost
    } | wanted.backstores
    return msgspec.structs.replace(target, backstores={name: backstores[name] for name in sorted(backstores)})


def _with_luns(running: Hba | None, wanted: Hba) -> Hba:
    """Return the wanted HBA with those LUNs besides that it has already."""
    luns = {lun.lun: lun for hba in (running, wanted) if hba is not None for lun in hba.luns}
    return msgspec.structs.replace(wanted, luns=tuple(luns[number] for number in sorted(luns)))


def _shown(document: Document) -> frozenset[str]:
    return frozenset(lun.backstore for hba in document.hbas for lun in hba.luns)


def _check_shown_once(target: Document, wanted: Document) -> None:
    """Refuse a backstore that a LUN shows which stays although the wanted document does not name it."""
    seen: dict[str, str] = {}
    for hba in target.hbas:
        for lun in hba.luns:
            here = f"LUN {lun.lun} of HBA {hba.id}"
            if (other := seen.setdefault(lun.backstore, here)) != here:
                asked = wanted.place_of(lun.backstore)
                stays = other if asked == (hba.id, lun.lun) else here
                raise ConfigError(
                    f"$.backstores.{lun.backstore}",
                    f"{stays} shows it already, and stays",
                    cure="prune all, or give this LUN another backstore",
                )
