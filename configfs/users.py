"""Users of a disk: who would lose something if it went away.

Reads /proc and /sys; the disk itself is not touched, so that this answers although nobody
serves it. Mounts of other mount namespaces are not seen, their programs are.
"""

from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

from vscsihba.configfs import paths
from vscsihba.configfs.hbas import find_lun


def users_of(disk: Path) -> list[str]:
    """Return what uses a disk, its partitions, or what is built upon them (LVM, MD, dm-crypt).

    Args:
        disk: Its node, ``/dev/sdX``.

    Returns:
        Reasons to show to a person, such as ``"/dev/sda1 is mounted on /srv"``; empty if it is free.
    """
    reasons = []
    mounts = list(_mounts())
    swaps = set(_swaps())
    for device in _family(paths.SYSFS / "class" / "block" / disk.name):
        node = paths.DEV / _node_name(device)
        number = paths.read(device / "dev")
        where = [
            place for major_minor, source, place in mounts if number == major_minor or str(node) == source
        ]
        reasons += [f"{node} is mounted on {place}" for place in dict.fromkeys(where)]
        if node in swaps:
            reasons.append(f"{node} is used as swap")
        reasons += [f"{node} is held by {_title(holder)}" for holder in paths.entries(device / "holders")]
    return reasons


def users_of_lun(hba_id: int, lun: int) -> list[str]:
    """Return what uses the disk of a LUN of ours, as `users_of` does; nothing where there is no disk.

    Raises:
        UsageError: The id or the LUN is out of range.
        InUseError: What is behind the LUN is somebody else's.
    """
    there = find_lun(hba_id, lun)
    return users_of(there.disk) if there is not None and there.disk is not None else []


def openers_of(*nodes: Path) -> list[str]:
    """Return the programs that have one of some device nodes open, such as ``"fio (pid 4711)"``.

    Only those that this process may see (all of them, for root, in this pid namespace), and none that is
    already killed: it lets go as soon as the kernel lets go of it.
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
    """Walk a disk, its partitions and, upwards, everything that holds one of them."""
    seen: set[str] = set()
    waiting = [device]
    while waiting:
        member = waiting.pop(0)
        if member.name in seen:
            continue
        seen.add(member.name)
        yield member
        children = [entry for entry in paths.entries(member) if (entry / "partition").exists()]
        holders = paths.entries(member / "holders")
        waiting += children
        waiting += [paths.SYSFS / "class" / "block" / holder.name for holder in holders]


def _node_name(device: Path) -> str:
    """Return the node's name below /dev, as mount and swap use it (``mapper/vg-lv`` for dm-0)."""
    mapped = paths.read(device / "dm" / "name")
    return f"mapper/{mapped}" if mapped else device.name


def _title(holder: Path) -> str:
    mapped = paths.read(paths.SYSFS / "class" / "block" / holder.name / "dm" / "name")
    return f"{holder.name} ({mapped})" if mapped else holder.name


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Yield ``major:minor``, source and mount point of every mount (proc(5), mountinfo)."""
    for line in (paths.read(paths.PROC / "self" / "mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) > 4 and len(rest) > 1:
            yield fields[2], _unescaped(rest[1]), _unescaped(fields[4])


def _swaps() -> Iterator[Path]:
    """Yield every swap device; dm devices by the name below /dev/mapper."""
    for line in (paths.read(paths.PROC / "swaps") or "").splitlines()[1:]:
        node = Path(_unescaped(line.split()[0]))
        yield paths.DEV / _node_name(paths.SYSFS / "class" / "block" / node.name)
        yield node


def _unescaped(text: str) -> str:
    """Undo the octal escapes of /proc: blank, tab, newline, backslash."""
    for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, plain)
    return text


def _open_files(directory: Path) -> Iterator[Path]:
    """Yield what the descriptors of a process lead to, nothing once it is gone or hidden."""
    try:
        for entry in directory.iterdir():
            yield entry.readlink()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return


def _is_killed(process: Path) -> bool:
    """Tell whether SIGKILL is pending for a process: it waits in the kernel, but its program has ended."""
    for line in (paths.read(process / "status") or "").splitlines():
        key, _, mask = line.partition(":")
        if key in ("SigPnd", "ShdPnd") and int(mask, 16) >> (SIGKILL - 1) & 1:
            return True
    return False
