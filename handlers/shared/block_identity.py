"""Identity of a block device: a text that names the medium, whatever the kernel calls it today.

``sdb`` and ``dm-3`` are handed out in the order in which devices turn up, so another disk may have the name
after the next start. The names taken here are the device's own (an identification that it reports, the UUID
of a mapping) and come from sysfs, which is there without udev; where the kernel does not tell, from udev's
database.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

_SYS: Final = Path("/sys/dev/block")
_UDEV: Final = Path("/run/udev/data")
"""One file a device, ``b<major>:<minor>``, with lines ``E:KEY=VALUE`` and ``S:link`` (udev's database)."""

_KEPT: Final = ("disk/by-id/wwn-", "disk/by-id/", "mapper/", "disk/by-partuuid/", "disk/by-uuid/", "zvol/")
"""Beginnings of links that udev makes anew for the same medium, the best first."""


def block_identity(device: int, *, sys: Path = _SYS, udev: Path = _UDEV) -> str | None:
    """Return a lasting name of a block device's medium, None if it has none.

    Args:
        device: Its number (``st_rdev``).
        sys: Where sysfs lists block devices.
        udev: Where udev keeps its database.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    home = (sys / number).resolve()
    database = _database(udev / f"b{number}")
    if (home / "partition").exists():
        return _of_partition(home, database, udev)
    return _of_whole(home, database)


def lasting_path(path: str, device: int, *, udev: Path = _UDEV) -> str | None:
    """Return a path that leads to the same device after a restart too; None if `path` does, or there is none.

    Args:
        path: Of a block device.
        device: Its number (``st_rdev``).
        udev: Where udev keeps its database.
    """
    if os.path.realpath(path) != os.path.abspath(path):  # noqa: PTH100 - a link, which somebody keeps right
        return None
    links = _database(udev / f"b{os.major(device)}:{os.minor(device)}").get("S", ())
    kept = sorted((link for link in links if link.startswith(_KEPT)), key=lambda link: (_rank(link), link))
    return f"/dev/{kept[0]}" if kept else None


def _rank(link: str) -> int:
    return next(rank for rank, start in enumerate(_KEPT) if link.startswith(start))


def _of_whole(home: Path, database: dict[str, list[str]]) -> str | None:
    """Return the identity of a disk, an array or a mapping."""
    for way in _WAYS:
        if (identity := way(home)) is not None:
            return identity
    for key in ("MD_UUID", "ID_WWN_WITH_EXTENSION", "ID_SERIAL"):
        if key in database:
            return f"udev:{key}:{database[key][0]}"
    links = [link for link in database.get("S", ()) if link.startswith(("disk/by-id/", "zvol/"))]
    return f"udev:{min(links)}" if links else None


def _of_partition(home: Path, database: dict[str, list[str]], udev: Path) -> str | None:
    """Return the identity of a partition: the disk's and where it begins, else its UUID in the table."""
    disk = _text(home.parent / "dev")
    whole = _of_whole(home.parent, _database(udev / f"b{disk}"))
    start = _text(home / "start")
    if whole is not None and start is not None:
        return f"{whole}:partition@{start}"
    event = _text(home / "uevent") or ""
    uuids = [line.partition("=")[2] for line in event.splitlines() if line.startswith("PARTUUID=")]
    uuids += database.get("ID_PART_ENTRY_UUID", [])
    return f"partuuid:{uuids[0]}" if uuids else None


def _of_mapping(home: Path) -> str | None:
    """Return the identity of a device-mapper device: its UUID (LVM, multipath, dm-crypt), else its name."""
    if uuid := _text(home / "dm" / "uuid"):
        return f"dm-uuid:{uuid}"
    name = _text(home / "dm" / "name")
    return None if name is None else f"dm-name:{name}"


def _of_array(home: Path) -> str | None:
    uuid = _text(home / "md" / "uuid")
    return None if uuid is None else f"md-uuid:{uuid}"


def _of_loop(home: Path) -> str | None:
    file = _text(home / "loop" / "backing_file")
    return None if file is None else f"loop:{_text(home / 'loop' / 'offset') or 0}:{file}"


def _of_disk(home: Path) -> str | None:
    """Return the identity of a disk: its WWID (SCSI, NVMe), serial number (virtio) or CID (MMC)."""
    for name in ("wwid", "device/wwid", "serial", "device/cid"):
        if text := _text(home / name):
            return f"{Path(name).name}:{' '.join(text.split())}"
    return None


_WAYS: Final[tuple[Callable[[Path], str | None], ...]] = (_of_mapping, _of_array, _of_loop, _of_disk)


def _text(path: Path) -> str | None:
    """Return the text of a file of sysfs; None if it is empty or missing."""
    try:
        return path.read_bytes().strip(b"\0 \n").decode(errors="backslashreplace") or None
    except OSError:
        return None


def _database(path: Path) -> dict[str, list[str]]:
    """Return udev's entries for a device: properties by name, links under ``S``."""
    entries: dict[str, list[str]] = {}
    for line in (_text(path) or "").splitlines():
        kind, _, rest = line.partition(":")
        key, _, value = rest.partition("=") if kind == "E" else (kind, "", rest)
        entries.setdefault(key, []).append(value)
    return entries
