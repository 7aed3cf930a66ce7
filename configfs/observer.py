"""Observing: reads from configfs and /sys what of ours is in the kernel.

Plain reading, never rtslib (see `lio`): nothing is made or changed by looking, and objects
of others are passed by. Objects that vanish meanwhile are taken as never seen.
"""

import os
import re
from pathlib import Path
from typing import Final

from vscsihba.configfs import paths
from vscsihba.configfs.found import Backstore, Hba, Lun, Observed
from vscsihba.configfs.model import BackstoreSpec
from vscsihba.configfs.names import SUBTYPE, id_of, is_ours
from vscsihba.errors import UsageError

Links = dict[tuple[str, int], Path]
"""Directory of the backstore behind each LUN: by the target's WWN and the LUN's number."""

PORTAL_GROUP: Final = "tpgt_1"
_CHANNEL: Final = 0
_TARGET: Final = 1
"""tcm_loop shows a portal group's LUNs under channel 0 and the target that is the group's tag."""

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
    """Return all of our objects that are in the kernel, in one walk over it.

    Without the kernel's target modules loaded that is nothing.
    """
    rings = _rings()
    backstores = {}
    links: Links = {}
    for directory in paths.core().glob("user_*/*"):
        found = _backstore(directory, rings)
        if found is not None:
            backstores[found.name] = found
            links.update(links_to(directory))
    hbas = {}
    foreign = set()
    for target in paths.entries(paths.loopback()):
        hba_id = id_of(target.name)
        if hba_id is None:
            continue
        seen = hba(target, links)
        if seen is None:
            foreign.add(hba_id)
        else:
            hbas[hba_id] = seen
    return Observed(backstores, hbas, frozenset(foreign))


def backstore(directory: Path) -> Backstore | None:
    """Return the backstore of ours at ``core/user_N/NAME``, None if there is none."""
    return _backstore(directory, _rings())


def hba(target: Path, links: Links | None = None) -> Hba | None:
    """Return the HBA of ours at ``loopback/naa.X``.

    Args:
        target: Its directory.
        links: What is known of its LUNs already; what is not is read from their directories.

    Returns:
        None if there is no such target or it is somebody else's: if its WWN is not one of ours, one of
        its LUNs leads to a backstore that is not ours, or it has a portal group that we never make.
    """
    hba_id = id_of(target.name)
    groups = {entry.name for entry in paths.entries(target) if entry.name.startswith("tpgt_")}
    if hba_id is None or not target.is_dir() or groups - {PORTAL_GROUP}:
        return None
    host = host_of(target)
    luns = {}
    for directory in paths.entries(target / PORTAL_GROUP / "lun"):
        number = int(directory.name.removeprefix("lun_"))
        behind = (links or {}).get((target.name, number)) or linked(directory)
        if behind is not None and not is_our_backstore(behind):
            return None
        luns[number] = lun(number, behind, host)
    nexus = paths.read(target / PORTAL_GROUP / "nexus")
    return Hba(hba_id, luns, host, complete=host is not None and bool(nexus))


def linked(lun: Path) -> Path | None:
    """Return the backstore's directory that a LUN's directory leads to, None if it leads nowhere.

    This waits while the LUN is being linked or unlinked: the kernel holds the directory locked.
    """
    try:
        with os.scandir(lun) as found:
            for entry in found:
                if entry.is_symlink():
                    return Path(os.path.realpath(entry.path))
    except FileNotFoundError:
        pass
    return None


def is_our_backstore(directory: Path) -> bool:
    """Tell whether a backstore's directory, of whatever kind, is one of ours."""
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

    The newest uio devices are looked at first, so that a backstore just made is found at once.
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
    """Return the uio device of each ring of ours, by the front of its name."""
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
        # Not finished: sizes are 0 until they are set, the serial is the last thing to come.
        spec = BackstoreSpec(directory.name, size=512, serial="unfinished")
        return Backstore(spec, index, enabled=False, uio=None)
    ring = rings.get(_ring_prefix(directory.name, index))
    uio = paths.DEV / ring if ring else None
    return Backstore(spec, index, enabled=enabled == 1, uio=uio)


def _serial(directory: Path) -> str:
    text = paths.read(directory / "wwn" / "vpd_unit_serial") or ""
    return text.partition(":")[2].strip()


def links_to(directory: Path) -> Links:
    """Return the tcm_loop LUNs that lead to a backstore, as the kernel's ALUA group lists them.

    A LUN's own directory says the same but is locked while the kernel scans the LUN: for ever, if the
    ring's server died just then. A kernel without the list leaves us the directories.
    """
    members = paths.read(directory / "alua" / "default_tg_pt_gp" / "members") or ""
    found = re.findall(rf"^loopback/(\S+)/{PORTAL_GROUP}/lun_(\d+)$", members, re.MULTILINE)
    return {(wwn, int(number)): directory for wwn, number in found}


def lun(number: int, behind: Path | None, host: int | None) -> Lun:
    """Return a LUN with its nodes; `behind` is its backstore's directory, `host` its SCSI host."""
    where = address(host, number)
    disk, generic = _nodes(where)
    known = where if scsi_device(where).exists() else None
    return Lun(number, behind.name if behind is not None else None, known, disk, generic)


def _nodes(where: str) -> tuple[Path | None, Path | None]:
    """Return the block and the generic device node of a SCSI device, as far as it has them."""
    nodes = []
    for kind in ("block", "scsi_generic"):
        names = paths.entries(scsi_device(where) / kind)
        nodes.append(paths.DEV / names[0].name if names else None)
    return nodes[0], nodes[1]
