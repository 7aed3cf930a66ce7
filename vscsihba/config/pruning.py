"""The document after an `apply`: entries of the running document are kept or removed, as `prune` says."""

from typing import Literal

import msgspec

from vscsihba.config.export import joined
from vscsihba.config.model import Document, Hba, Lun
from vscsihba.errors import ConfigError

Prune = Literal["named", "all", "none"]
"""The entries to remove if the new document lacks them: in HBAs and exports that it names; all; none."""


def merge(running: Document, wanted: Document, prune: Prune) -> Document:
    """Return the document after an `apply`.

    Raises:
        ConfigError: A LUN that is kept has the backstore or a name of a new LUN.
    """
    if prune == "all":
        return wanted
    hbas = {hba.id: hba for hba in running.hbas}
    for hba in wanted.hbas:
        hbas[hba.id] = _with_luns(hbas.get(hba.id), hba) if prune == "none" else hba
    exports = {export.name: export for export in running.exports}
    for export in wanted.exports:
        exports[export.name] = joined(exports.get(export.name), export) if prune == "none" else export
    target = Document(
        hbas=tuple(hbas[key] for key in sorted(hbas)), exports=tuple(exports[key] for key in sorted(exports))
    )
    _check_conflicts(target, wanted)
    _check_exports(target)
    shown = _shown(target)
    lost = frozenset() if prune == "none" else _shown(running) - shown
    backstores = {
        name: stack for name, stack in running.backstores.items() if name not in lost
    } | wanted.backstores
    return msgspec.structs.replace(target, backstores={name: backstores[name] for name in sorted(backstores)})


def _with_luns(running: Hba | None, wanted: Hba) -> Hba:
    """Return the wanted HBA with its LUNs and those that run already."""
    luns = {lun.lun: lun for hba in (running, wanted) if hba is not None for lun in hba.luns}
    return msgspec.structs.replace(wanted, luns=tuple(luns[number] for number in sorted(luns)))


def _check_exports(target: Document) -> None:
    """Refuse to remove the LUN of a backstore that an export still shows, and to show it twice."""
    for export in target.exports:
        seen: dict[str, int] = {}
        for lun in export.luns:
            if (other := seen.setdefault(lun.backstore, lun.lun)) != lun.lun:
                raise ConfigError(
                    f"$.backstores.{lun.backstore}",
                    f"LUN {other} and LUN {lun.lun} of the export {export.name} would both show it",
                    cure="prune the export, or use the number that it has there",
                )
            if target.place_of(lun.backstore) is None:
                raise ConfigError(
                    f"$.backstores.{lun.backstore}",
                    f"LUN {lun.lun} of the export {export.name} shows it, and stays",
                    cure="remove that LUN too, or prune all",
                )


def _shown(document: Document) -> frozenset[str]:
    return frozenset(lun.backstore for hba in document.hbas for lun in hba.luns)


def _check_conflicts(target: Document, wanted: Document) -> None:
    """Refuse a new LUN with the backstore or a name of a LUN that is kept."""
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
    """Return the error for a LUN that is kept and has the same value as a new one."""
    asked = wanted.hba(one[0])
    is_asked = asked is not None and asked.lun(one[1].lun) == one[1]
    (hba_id, stays), (_, new) = (other, one) if is_asked else (one, other)
    return ConfigError(
        f"$.backstores.{new.backstore}",
        f"LUN {stays.lun} of HBA {hba_id} has the same {key}, and stays",
        cure="prune all, or choose another one for this LUN",
    )
