"""What a running document becomes when a wanted one is applied to it: what goes, and what is left alone."""

from typing import Literal

import msgspec

from vscsihba.config.model import Document, Hba, Lun
from vscsihba.errors import ConfigError

Prune = Literal["named", "all", "none"]
"""What goes if the wanted document does not have it: LUNs of HBAs that it names; everything; nothing."""


def merge(running: Document, wanted: Document, prune: Prune) -> Document:
    """Return what there is to be.

    Raises:
        ConfigError: A LUN that is left alone has what a wanted LUN is to have too.
    """
    if prune == "all":
        return wanted
    hbas = {hba.id: hba for hba in running.hbas}
    for hba in wanted.hbas:
        hbas[hba.id] = _with_luns(hbas.get(hba.id), hba) if prune == "none" else hba
    target = Document(hbas=tuple(hbas[key] for key in sorted(hbas)))
    _check_apart(target, wanted)
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


def _check_apart(target: Document, wanted: Document) -> None:
    """Refuse what a LUN has which stays although the wanted document does not name it."""
    seen: dict[tuple[str, str], tuple[int, Lun]] = {}
    for hba in target.hbas:
        for lun in hba.luns:
            for key, value in (("backstore", lun.backstore), ("serial", lun.serial), ("wwn", lun.wwn)):
                if value is None:
                    continue
                other = seen.setdefault((key, value), (hba.id, lun))
                if other != (hba.id, lun):
                    raise _taken(key, other, (hba.id, lun), wanted)


def _taken(key: str, one: tuple[int, Lun], other: tuple[int, Lun], wanted: Document) -> ConfigError:
    """Return the error for a LUN that stays and has the same as one that is asked for."""
    asked = wanted.hba(one[0])
    is_asked = asked is not None and asked.lun(one[1].lun) == one[1]
    (hba_id, stays), (_, new) = (other, one) if is_asked else (one, other)
    return ConfigError(
        f"$.backstores.{new.backstore}",
        f"LUN {stays.lun} of HBA {hba_id} has the same {key}, and stays",
        cure="prune all, or choose another one for this LUN",
    )
