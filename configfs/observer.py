"""Observing: reads from configfs and /sys what of ours is in the kernel.

Plain reading, never rtslib (see `lio`): nothing is made or changed by looking, and objects
of others are passed by. Objects that vanish meanwhile are taken as never seen.
"""

import os
from pathlib import Path
from typing import Final

from vscsihba.configfs import paths
from vscsihba.configfs.found import Backstore, Hba, Lun, Observed
from vscsihba.configfs.model import BackstoreSpec
from vscsihba.configfs.names import SUBTYPE, id_of, is_ours
from vscsihba.errors import UsageError

_PORTAL_GROUP: Final = "tpgt_1"
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
    for directory in paths.core().glob("user_*/*"):
        found = _backstore(directory, rings)
        if found is not None:
            backstores[found.name] = found
    hbas = {}
    foreign = set()
    for target in paths.entries(paths.loopback()):
        hba_id = id_of(target.name)
        if hba_id is None:
            continue
        seen = hba(target)
        if seen is None:
            foreign.add(hba_id)
        else:
            hbas[hba_id] = seen
    return Observed(backstores, hbas, frozenset(foreign))


def backstore(directory: Path) -> Backstore | None:
    """Return the backstore of ours at ``core/user_N/NAME``, None if there is none."""
    return _backstore(directory, _rings())


def hba(target: Path, *, with_devices: bool = True) -> Hba | None:
    """Return the HBA of ours at ``loopback/naa.X``.

    Args:
        target: Its directory.
        with_devices: Look up the device nodes of its LUNs too.

    Returns:
        None if there is no such target or it is somebody else's: if its WWN is not one of ours, one of
        its LUNs leads to a backstore that is not ours, or it has a portal group that we never make.
    """
    hba_id = id_of(target.name)
    if hba_id is None or not target.is_dir():
        return None
    host = host_of(target)
    luns = {}
    for entry in paths.entries(target):
        if entry.name.startswith("tpgt_") and entry.name != _PORTAL_GROUP:
            return None
    for directory in paths.entries(target / _PORTAL_GROUP / "lun"):
        number = int(directory.name.removeprefix("lun_"))
        behind = _linked(directory)
        if behind is not None and not _is_our_backstore(behind):
            return None
        name = behind.name if behind is not None else None
        where = address(host, number)
        disk, generic = _nodes(where) if with_devices else (None, None)
        luns[number] = Lun(number, name, where if scsi_device(where).exists() else None, disk, generic)
    return Hba(hba_id, luns, host, complete=host is not None and bool(paths.read(_nexus(target))))


def host_of(target: Path) -> int | None:
    """Return N of ``/sys/class/scsi_host/hostN`` of a tcm_loop target, None while it has no portal group."""
    text = paths.read(target / _PORTAL_GROUP / "address")
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
    unknown = {field for field in numbers if field not in known}
    notified = paths.read_int(attrib / "tmr_notification")
    if notified is None:
        unknown.add("tmr_notification")
    try:
        spec = BackstoreSpec(
            directory.name,
            serial=_serial(directory),
            config=configured.removeprefix(f"{SUBTYPE}/"),
            tmr_notification=notified != 0,
            **{"size": 0, **known},
        )
    except UsageError:
        # Not finished: sizes are 0 until they are set, the serial is the last thing to come.
        spec = BackstoreSpec(directory.name, size=512, serial="unfinished")
        return Backstore(spec, index, enabled=False, uio=None)
    ring = rings.get(_ring_prefix(directory.name, index))
    uio = paths.DEV / ring if ring else None
    return Backstore(spec, index, enabled=enabled == 1, uio=uio, unknown=frozenset(unknown))


def _serial(directory: Path) -> str:
    text = paths.read(directory / "wwn" / "vpd_unit_serial") or ""
    return text.partition(":")[2].strip()


def _linked(lun: Path) -> Path | None:
    """Return the backstore's directory that a LUN leads to, None if it leads nowhere."""
    try:
        with os.scandir(lun) as found:
            for entry in found:
                if entry.is_symlink():
                    return Path(os.path.realpath(entry.path))
    except FileNotFoundError:
        pass
    return None


def _is_our_backstore(directory: Path) -> bool:
    kind = directory.parent.name.startswith("user_")
    return kind and is_ours(directory.name, paths.read(directory / "attrib" / "dev_config") or "")


def _nexus(target: Path) -> Path:
    return target / _PORTAL_GROUP / "nexus"


def _nodes(where: str) -> tuple[Path | None, Path | None]:
    """Return the block and the generic device node of a SCSI device, as far as it has them."""
    nodes = []
    for kind in ("block", "scsi_generic"):
        names = paths.entries(scsi_device(where) / kind)
        nodes.append(paths.DEV / names[0].name if names else None)
    return nodes[0], nodes[1]
