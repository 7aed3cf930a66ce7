"""Users of a disk: mounts, swaps, holders such as LVM and MD, other targets, and programs.

First the kernel tells whether the disk is claimed for exclusive use (`claims`); then /proc and /sys name the
users that can be seen. So a hidden user is noticed although it cannot be named.
"""

from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

from vscsihba.configfs import paths
from vscsihba.configfs.claims import is_claimed
from vscsihba.configfs.hbas import find_lun
from vscsihba.configfs.mounts import Mount, mounts, unescaped


def users_of(disk: Path) -> list[str]:
    """Return the users of a disk, of its partitions, and of devices built on them (LVM, MD, dm-crypt).

    Args:
        disk: Its node, ``/dev/sdX``.

    Returns:
        A text for each user, such as ``"/dev/sda1 is mounted on /srv"``; empty if the disk is free.
    """
    claimed = is_claimed(paths.DEV / disk.name)
    family = list(_family(paths.SYSFS / "class" / "block" / disk.name))
    reasons = [reason for device in family for reason in (*_loops(device), *_namespaces(device))]
    if claimed is False:  # loop devices and NVMe namespaces are the only users that do not claim it
        return reasons
    reasons = [*_claimants(family), *reasons]
    if claimed and not reasons:
        nodes = [paths.DEV / device.name for device in family]
        programs = openers_of(*nodes)
        who = f": {', '.join(programs)} has it open" if programs else ""
        reasons.append(f"{paths.DEV / disk.name} is claimed for exclusive use (O_EXCL){who or _UNSEEN}")
    return reasons


_UNSEEN = (
    " by the kernel: a file system of a hidden mount namespace, an external journal, zfs or another target"
)


def _claimants(family: list[Path]) -> Iterator[str]:
    """Yield the users that have claimed a disk, as far as they can be seen."""
    mounted, swaps, targets = list(mounts()), set(_swaps()), dict(_targets())
    for device in family:
        node = paths.DEV / _node_name(device)
        yield from dict.fromkeys(_mounts_of(device, node, mounted))
        if node in swaps:
            yield f"{node} is used as swap"
        for holder in paths.entries(device / "holders"):
            yield f"{node} is held by {_title(holder)}"
        for volume in sorted((paths.SYSFS / "fs/btrfs").glob(f"*/devices/{device.name}")):
            if not any(str(node) in mount.sources for mount in mounted):
                yield f"{node} is part of the btrfs file system {volume.parents[1].name}"
        if (paths.PROC / "fs/jbd2" / device.name).exists():
            yield f"{node} is the external journal of an ext4 file system"
        if (target := targets.get(str(node))) is not None:
            yield f"{node} is a backstore of another target ({target})"


def _mounts_of(device: Path, node: Path, mounted: list[Mount]) -> Iterator[str]:
    number = paths.read(device / "dev")
    for mount in mounted:
        if (number is not None and number == mount.number) or str(node) in mount.sources:
            yield f"{node} is mounted on {mount}"
        elif str(node) in mount.further:
            yield f"{node} belongs to the file system that is mounted on {mount}"


def _loops(device: Path) -> Iterator[str]:
    """Yield the loop devices behind which a device is."""
    nodes = {str(paths.DEV / device.name), str(paths.DEV / _node_name(device))}
    for file in sorted((paths.SYSFS / "block").glob("loop*/loop/backing_file")):
        if paths.read(file) in nodes:
            yield f"{paths.DEV / device.name} is behind {paths.DEV / file.parents[1].name}"


def _namespaces(device: Path) -> Iterator[str]:
    """Yield the namespaces of NVMe targets that show a device (drivers/nvme/target/configfs.c)."""
    node = paths.DEV / _node_name(device)
    for namespace in sorted((paths.CONFIGFS / "nvmet/subsystems").glob("*/namespaces/*")):
        shown = paths.read(namespace / "device_path")
        if shown and paths.read_int(namespace / "enable") == 1 and Path(shown).resolve() == node.resolve():
            subsystem = namespace.parents[1].name
            yield f"{node} is namespace {namespace.name} of the NVMe subsystem {subsystem}"


def _targets() -> Iterator[tuple[str, str]]:
    """Yield the nodes that targetcli and similar programs export, and the backstore of each."""
    for directory in sorted(paths.core().glob("iblock_*/*")):
        if node := paths.read(directory / "udev_path"):
            yield node, f"{directory.parent.name}/{directory.name}"


def users_of_lun(hba_id: int, lun: int) -> list[str]:
    """Return the users of a LUN's disk as `users_of` does; none if there is no disk.

    Raises:
        UsageError: The id or the LUN is out of range.
        InUseError: The LUN's backstore belongs to another program.
    """
    existing = find_lun(hba_id, lun)
    return users_of(existing.disk) if existing is not None and existing.disk is not None else []


def openers_of(*nodes: Path) -> list[str]:
    """Return the programs that have one of some device nodes open, such as ``"fio (pid 4711)"``.

    Only programs that this process may see (for root, all in this pid namespace), without those that are
    already killed: the kernel closes their files soon.
    """
    wanted = set(nodes)
    return [
        f"{paths.read(process / 'comm')} (pid {process.name})"
        for process in (paths.entries(paths.PROC) if nodes else [])
        if process.name.isdecimal()
        and not wanted.isdisjoint(_open_files(process / "fd"))
        and not _is_killed(process)
    ]


def _family(device: Path) -> Iterator[Path]:
    """Yield a disk, its partitions and, upwards, all devices that hold one of them."""
    seen: set[str] = set()
    waiting = [device]
    while waiting:
        current = waiting.pop(0)
        if current.name in seen:
            continue
        seen.add(current.name)
        yield current
        children = [entry for entry in paths.entries(current) if (entry / "partition").exists()]
        holders = paths.entries(current / "holders")
        waiting += children
        waiting += [paths.SYSFS / "class" / "block" / holder.name for holder in holders]


def _node_name(device: Path) -> str:
    """Return the node's name below /dev, as mount and swap use it (``mapper/vg-lv`` for dm-0)."""
    mapped = paths.read(device / "dm" / "name")
    return f"mapper/{mapped}" if mapped else device.name


def _title(holder: Path) -> str:
    mapped = paths.read(paths.SYSFS / "class" / "block" / holder.name / "dm" / "name")
    return f"{holder.name} ({mapped})" if mapped else holder.name


def _swaps() -> Iterator[Path]:
    """Yield every swap device; dm devices by the name below /dev/mapper."""
    for line in (paths.read(paths.PROC / "swaps") or "").splitlines()[1:]:
        node = Path(unescaped(line.split()[0]))
        yield paths.DEV / _node_name(paths.SYSFS / "class" / "block" / node.name)
        yield node


def _open_files(directory: Path) -> Iterator[Path]:
    """Yield the files that a process has open; none once it has ended or if it is hidden."""
    try:
        for entry in directory.iterdir():
            yield entry.readlink()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return


def _is_killed(process: Path) -> bool:
    """Return whether SIGKILL is pending for a process that still waits in the kernel."""
    for line in (paths.read(process / "status") or "").splitlines():
        key, _, mask = line.partition(":")
        if key in ("SigPnd", "ShdPnd") and int(mask, 16) >> (SIGKILL - 1) & 1:
            return True
    return False
