"""Reading of vscsihba's objects in configfs and /sys.

Reads files only and never uses rtslib (see `lio`), so that reading creates and changes nothing. Objects of
other programs are skipped, and so are objects that disappear meanwhile.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from vscsihba.configfs import paths
from vscsihba.configfs.model import BackstoreSpec
from vscsihba.configfs.names import SUBTYPE, id_of, is_local, is_ours, place_of
from vscsihba.configfs.objects import Backstore, Hba, Lun, Observed
from vscsihba.errors import UsageError

Links = dict[tuple[str, int], Path]
"""Directory of the backstore behind each LUN: by the target's WWN and the LUN's number."""

PORTAL_GROUP: Final = "tpgt_1"
_CHANNEL: Final = 0
_TARGET: Final = 1
"""tcm_loop puts a portal group's LUNs on channel 0 and the target whose number is the group's tag."""

_NUMBERS: Final = {
    "size": "dev_size",
    "block_size": "hw_block_size",
    "hw_max_sectors": "hw_max_sectors",
    "max_data_area_mb": "max_data_area_mb",
    "data_pages_per_blk": "data_pages_per_blk",
    "cmd_ring_size_mb": "cmd_ring_size_mb",
    "cmd_time_out": "cmd_time_out",
    "qfull_time_out": "qfull_time_out",
}
"""Field of a `BackstoreSpec`: its attribute in configfs."""


def observe() -> Observed:
    """Return all objects of vscsihba in the kernel, read in one walk.

    The result is empty while the kernel's target modules are not loaded.
    """
    rings = _rings()
    backstores = {}
    links: Links = {}
    for directory in paths.core().glob("user_*/*"):
        backstore = _backstore(directory, rings)
        if backstore is not None:
            backstores[backstore.name] = backstore
            links.update(links_to(directory))
    hbas = {}
    foreign = set()
    for target in paths.entries(paths.loopback()):
        hba_id = id_of(target.name)
        if hba_id is None:
            continue
        observed = hba(target, links)
        if observed is None:
            foreign.add(hba_id)
        else:
            hbas[hba_id] = _with_exported(observed, backstores)
    return Observed(backstores, hbas, frozenset(foreign))


def _with_exported(hba: Hba, backstores: Mapping[str, Backstore]) -> Hba:
    """Return an HBA with those of its LUNs that only exports show."""
    places = {name: place_of(name) for name, backstore in backstores.items() if is_exported(backstore)}
    exported = {
        place[1]: Lun(place[1], name, local=False)
        for name, place in places.items()
        if place is not None and place[0] == hba.id
    }
    return replace(hba, luns={**exported, **hba.luns}) if exported else hba


def is_exported(backstore: Backstore) -> bool:
    """Return whether a backstore works and is linked to no HBA, as it was made."""
    return backstore.enabled and not is_local(backstore.spec.config)


def backstore(directory: Path) -> Backstore | None:
    """Return the backstore of vscsihba at ``core/user_N/NAME``, None if there is none."""
    return _backstore(directory, _rings())


def hba(target: Path, links: Links | None = None) -> Hba | None:
    """Return the HBA of vscsihba at ``loopback/naa.X``.

    Args:
        target: Its directory.
        links: The links that are known already; the others are read from the LUNs' directories.

    Returns:
        None if there is no such target, or if it belongs to another program: its WWN is not one of
        vscsihba, a LUN has a backstore of another program, or it has a portal group that vscsihba never
        creates.
    """
    hba_id = id_of(target.name)
    groups = {entry.name for entry in paths.entries(target) if entry.name.startswith("tpgt_")}
    if hba_id is None or not target.is_dir() or groups - {PORTAL_GROUP}:
        return None
    host = host_of(target)
    luns = {}
    for directory in paths.entries(target / PORTAL_GROUP / "lun"):
        number = int(directory.name.removeprefix("lun_"))
        link = (links or {}).get((target.name, number)) or linked(directory)
        if link is not None and not is_our_backstore(link):
            return None
        luns[number] = lun(number, link, host)
    nexus = paths.read(target / PORTAL_GROUP / "nexus")
    return Hba(hba_id, luns, host, complete=host is not None and bool(nexus))


def linked(lun: Path) -> Path | None:
    """Return the directory of the backstore that a LUN links to, None if it has no link.

    Waits while the LUN is being linked or unlinked: the kernel holds the directory locked.
    """
    try:
        with os.scandir(lun) as entries:
            for entry in entries:
                if entry.is_symlink():
                    return Path(os.path.realpath(entry.path))
    except FileNotFoundError:
        pass
    return None


def is_our_backstore(directory: Path) -> bool:
    """Return whether a backstore's directory, of any kind, belongs to vscsihba."""
    kind = directory.parent.name.startswith("user_")
    return kind and is_ours(directory.name, paths.read(directory / "attrib" / "dev_config") or "")


def host_of(target: Path) -> int | None:
    """Return N of ``/sys/class/scsi_host/hostN`` of a tcm_loop target, None while it has no portal group."""
    text = paths.read(target / PORTAL_GROUP / "address")
    return int(text.partition(":")[0]) if text else None


def address(host: int | None, lun: int) -> str:
    """Return ``host:channel:target:lun`` of a LUN."""
    return f"{host}:{_CHANNEL}:{_TARGET}:{lun}"


def scsi_device(where: str) -> Path:
    """Return the directory in /sys of the SCSI device at ``host:channel:target:lun``."""
    return paths.SYSFS / "bus" / "scsi" / "devices" / where


def ring_of(name: str, index: int) -> str | None:
    """Return the name (``uioN``) of the uio device of a backstore, None if it has none.

    The newest uio devices are tried first, so that a backstore just created is found at once.
    """
    devices = paths.entries(paths.SYSFS / "class" / "uio")
    devices.sort(key=lambda device: int(device.name.removeprefix("uio")), reverse=True)
    for device in devices:
        text = paths.read(device / "name")
        if text is not None and text.startswith(_ring_prefix(name, index)):
            return device.name
    return None


def _ring_prefix(name: str, index: int) -> str:
    return f"tcm-user/{index}/{name}/{SUBTYPE}/"


def _rings() -> dict[str, str]:
    """Return the uio device of each TCMU ring, by the first part of its name."""
    rings = {}
    for device in paths.entries(paths.SYSFS / "class" / "uio"):
        parts = (paths.read(device / "name") or "").split("/")
        if len(parts) > 3 and parts[0] == "tcm-user":
            rings["/".join(parts[:4]) + "/"] = device.name
    return rings


def _backstore(directory: Path, rings: dict[str, str]) -> Backstore | None:
    attrib = directory / "attrib"
    configured = paths.read(attrib / "dev_config") or ""
    enabled = paths.read_int(directory / "enable")
    if not is_ours(directory.name, configured) or enabled is None:
        return None
    index = int(directory.parent.name.removeprefix("user_"))
    numbers = {field: paths.read_int(attrib / name) for field, name in _NUMBERS.items()}
    known = {field: value for field, value in numbers.items() if value is not None}
    notified = paths.read_int(attrib / "tmr_notification")
    try:
        spec = BackstoreSpec(
            directory.name,
            serial=_serial(directory),
            config=configured.removeprefix(f"{SUBTYPE}/"),
            tmr_notification=notified != 0,  # an older kernel does not say: the default
            **{"size": 0, **known},
        )
    except UsageError:
        # Its creation was cut short: sizes are 0 until they are set, and the serial is set last.
        spec = BackstoreSpec(directory.name, size=512, serial="unfinished")
        return Backstore(spec, index, enabled=False, uio=None)
    ring = rings.get(_ring_prefix(directory.name, index))
    uio = paths.DEV / ring if ring else None
    return Backstore(spec, index, enabled=enabled == 1, uio=uio)


def _serial(directory: Path) -> str:
    text = paths.read(directory / "wwn" / "vpd_unit_serial") or ""
    return text.partition(":")[2].strip()


def links_to(directory: Path) -> Links:
    """Return the tcm_loop LUNs that link to a backstore, from the list of the kernel's ALUA group.

    A LUN's own directory has the same information but is locked while the kernel scans the LUN, for ever if
    the ring's server died meanwhile. Some kernels have no such list.
    """
    members = paths.read(directory / "alua" / "default_tg_pt_gp" / "members") or ""
    luns = re.findall(rf"^loopback/(\S+)/{PORTAL_GROUP}/lun_(\d+)$", members, re.MULTILINE)
    return {(wwn, int(number)): directory for wwn, number in luns}


def lun(number: int, link: Path | None, host: int | None) -> Lun:
    """Return a LUN with its nodes; `link` is its backstore's directory, `host` its SCSI host."""
    where = address(host, number)
    disk, generic = _nodes(where)
    known = where if scsi_device(where).exists() else None
    return Lun(number, link.name if link is not None else None, known, disk, generic)


def _nodes(where: str) -> tuple[Path | None, Path | None]:
    """Return the block and the generic device node of a SCSI device, None for a missing one."""
    nodes = []
    for kind in ("block", "scsi_generic"):
        names = paths.entries(scsi_device(where) / kind)
        nodes.append(paths.DEV / names[0].name if names else None)
    return nodes[0], nodes[1]
