"""The check-up of what is in the kernel: served, left behind by somebody who died, or somebody else's."""

from collections.abc import Iterator

from vscsihba import configfs
from vscsihba.cli.doctor.finding import Finding
from vscsihba.configfs import paths
from vscsihba.units import counted


def check_kernel_objects() -> Iterator[Finding]:
    """See what of ours is in the kernel, and whether somebody serves it."""
    observed = configfs.observe()
    findings = [*_hbas(observed), *_orphans(observed), *_foreign(observed)]
    yield from findings or [Finding("in the kernel", "ok", "no virtual HBA")]


def _hbas(observed: configfs.Observed) -> Iterator[Finding]:
    for hba in observed.hbas.values():
        title = f"hba{hba.id}"
        luns = counted(len(hba.luns), "LUN")
        broken = [str(lun.number) for lun in hba.luns.values() if not lun.complete]
        servers = _servers(hba, observed)
        if not servers and hba.luns:
            them = "it" if len(hba.luns) == 1 else "them"
            yield Finding(title, "problem", f"{luns}, and nobody serves {them}", _cure(hba.id))
        elif broken or not hba.complete:
            where = f"LUN {', '.join(broken)} of it" if broken else "it"
            yield Finding(title, "problem", f"the making of {where} was cut short", _cure(hba.id))
        elif servers:
            yield Finding(title, "ok", f"{luns}, served by {', '.join(servers)}")
        else:
            yield Finding(title, "note", "no LUNs")


def _servers(hba: configfs.Hba, observed: configfs.Observed) -> list[str]:
    names = {lun.backstore for lun in hba.luns.values()}
    rings = [found.uio for name, found in observed.backstores.items() if name in names and found.uio]
    return sorted(set(configfs.openers_of(*rings)))


def _cure(hba_id: int) -> str:
    return (
        "start again what served it (vscsihba daemon, or vscsitarget with the same words), "
        f"or remove it: vscsihba clear {hba_id}"
    )


def _orphans(observed: configfs.Observed) -> Iterator[Finding]:
    """Yield the backstores that no LUN leads to."""
    linked = {lun.backstore for hba in observed.hbas.values() for lun in hba.luns.values()}
    for name, found in observed.backstores.items():
        if name in linked or (found.uio is not None and configfs.openers_of(found.uio)):
            continue
        where = paths.core() / f"user_{found.index}"
        yield Finding(
            f"backstore {name}",
            "warning",
            "no LUN leads to it, and nobody serves it",
            f"rmdir {where}/{name}",
        )


def _foreign(observed: configfs.Observed) -> Iterator[Finding]:
    for hba_id in sorted(observed.foreign):
        yield Finding(
            f"hba{hba_id}", "note", f"{configfs.wwn_of(hba_id)} is somebody else's target: the id is taken"
        )
