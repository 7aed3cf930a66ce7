"""Checks of the kernel's objects: HBAs that are not served, leftovers of dead processes, foreign targets."""

from collections.abc import Iterator

from vscsihba import configfs
from vscsihba.cli.doctor.finding import Finding
from vscsihba.configfs import paths
from vscsihba.units import counted


def check_kernel_objects() -> Iterator[Finding]:
    """Yield the HBAs and backstores in the kernel, and whether they are served."""
    observed = configfs.observe()
    findings = [*_hbas(observed), *_orphans(observed), *_foreign(observed)]
    yield from findings or [Finding("in the kernel", "ok", "no virtual HBA")]


def _hbas(observed: configfs.Observed) -> Iterator[Finding]:
    for hba in observed.hbas.values():
        title = f"hba{hba.id}"
        luns = counted(len(hba.luns), "LUN")
        broken = [str(lun.number) for lun in hba.luns.values() if lun.backstore is None]
        deleted = [str(lun.number) for lun in hba.luns.values() if lun.backstore and not lun.complete]
        servers = _servers(hba, observed)
        if not servers and hba.luns:
            yield Finding(title, "problem", f"{luns}, not served", _cure(hba.id))
        elif broken or not hba.complete:
            where = f" of LUN {', '.join(broken)}" if broken else ""
            yield Finding(title, "problem", f"creation{where} was interrupted", _cure(hba.id))
        elif deleted:
            text = f"another program has deleted the disk of LUN {', '.join(deleted)} from Linux"
            yield Finding(title, "problem", text, f"{_cure(hba.id)}; memory disks lose their data")
        elif servers:
            yield Finding(title, "ok", f"{luns}, served by {', '.join(servers)}")
        else:
            yield Finding(title, "note", "no LUNs")


def _servers(hba: configfs.Hba, observed: configfs.Observed) -> list[str]:
    names = {lun.backstore for lun in hba.luns.values()}
    rings = [
        backstore.uio for name, backstore in observed.backstores.items() if name in names and backstore.uio
    ]
    return sorted(set(configfs.openers_of(*rings)))


def _cure(hba_id: int) -> str:
    return (
        'restart what serves it ("systemctl restart vscsihba", or vscsitarget with the same arguments), '
        f'or remove it: "vscsihba clear {hba_id}"'
    )


def _orphans(observed: configfs.Observed) -> Iterator[Finding]:
    """Yield the backstores that have no LUN and no server."""
    linked = {lun.backstore for hba in observed.hbas.values() for lun in hba.luns.values()}
    for name, backstore in observed.backstores.items():
        if name in linked or (backstore.uio is not None and configfs.openers_of(backstore.uio)):
            continue
        where = paths.core() / f"user_{backstore.index}"
        yield Finding(
            f"backstore {name}",
            "warning",
            "has no LUN, and is not served",
            f'remove it: "rmdir {where}/{name}"',
        )


def _foreign(observed: configfs.Observed) -> Iterator[Finding]:
    for hba_id in sorted(observed.foreign):
        yield Finding(
            f"hba{hba_id}",
            "note",
            f"{configfs.wwn_of(hba_id)} was created by another program: the id is taken",
        )
