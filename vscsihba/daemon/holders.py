"""Users of a file or block device: mounts, swap, loop devices, other targets, locks.

Reads /proc, /sys and configfs, and opens files for reading only. Knows no document.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vscsihba.configfs import observer, paths, users_of

Key = tuple[str, int | str, int]
"""Identifies a file under any name: the kind, and the numbers of an inode or a device, or a path."""


def key_of(path: Path) -> Key:
    """Return the key of a file or block device, equal for all its names; the file need not exist yet."""
    try:
        status = path.stat()
    except OSError:
        return "new", os.path.realpath(path), 0
    if stat.S_ISBLK(status.st_mode):
        return "block", status.st_rdev, 0
    return "file", status.st_dev, status.st_ino


def whole_of(key: Key) -> Key | None:
    """Return the disk that a block device is a partition of, None for anything else."""
    device = _sysfs(key)
    if device is None or not (device / "partition").exists():
        return None
    numbers = paths.read(device.parent / "dev")
    if numbers is None:
        return None
    major, _, minor = numbers.partition(":")
    return "block", os.makedev(int(major), int(minor)), 0


def size_of_device(key: Key) -> int | None:
    """Return the bytes of a block device, None for anything else."""
    device = _sysfs(key)
    sectors = None if device is None else paths.read_int(device / "size")
    return None if sectors is None else sectors * 512


@dataclass(frozen=True, slots=True)
class Holders:
    """The users of files and devices on this machine, read once for a whole document.

    Attributes:
        taken: The user of each file and device that another program uses, as a text.
        ours: The LUN of each disk that vscsihba serves, as a text.
    """

    taken: Mapping[Key, str]
    ours: Mapping[Key, str]


def find_holders() -> Holders:
    """Read the swaps, loop devices and targets of this machine."""
    ours = {
        key_of(lun.disk): f"LUN {lun.number} of HBA {hba.id}"
        for hba in observer.observe().hbas.values()
        for lun in hba.luns.values()
        if lun.disk is not None
    }
    return Holders({**dict(_other_targets()), **dict(_loops()), **dict(_swaps())}, ours)


def holders_of(path: Path, holders: Holders, *, read_only: bool = False) -> list[str]:
    """Return the users of a file or block device, a text each; empty if it is free.

    Args:
        path: The file or device; one that does not exist is free.
        holders: The users of all files.
        read_only: It will only be read, so other programs may read it too.
    """
    key = key_of(path)
    if key[0] == "new":
        return []
    users = [holders.taken[key]] if key in holders.taken else []
    device = _sysfs(key)
    if device is None:
        return [*users, *_locks(path, read_only=read_only)]
    return users if read_only else users_of(paths.DEV / device.name) + users


def our_disk(path: Path, holders: Holders) -> str | None:
    """Return the LUN that a block device is, or is a partition of; None if vscsihba does not serve it."""
    key = key_of(path)
    return holders.ours.get(key) or holders.ours.get(whole_of(key) or key)


def _sysfs(key: Key) -> Path | None:
    """Return the folder of a block device below /sys."""
    if key[0] != "block" or not isinstance(key[1], int):
        return None
    return (paths.SYSFS / "dev" / "block" / f"{os.major(key[1])}:{os.minor(key[1])}").resolve()


def _other_targets() -> Iterator[tuple[Key, str]]:
    """Yield the files and devices behind the backstores of other targets, such as targetcli's."""
    for directory in sorted(paths.core().glob("*_*/*")):
        made_of = None if directory.parent.name.startswith("user_") else paths.read(directory / "udev_path")
        if made_of:
            name = f"{directory.parent.name}/{directory.name}"
            yield key_of(Path(made_of)), f"it is a backstore of another target ({name})"


def _loops() -> Iterator[tuple[Key, str]]:
    for file in sorted((paths.SYSFS / "block").glob("loop*/loop/backing_file")):
        if behind := paths.read(file):
            yield key_of(Path(behind)), f"it is behind {paths.DEV / file.parents[1].name}"


def _swaps() -> Iterator[tuple[Key, str]]:
    for line in (paths.read(paths.PROC / "swaps") or "").splitlines()[1:]:
        name, kind = line.split()[:2]
        if kind == "file":
            yield key_of(Path(name.replace("\\040", " "))), "it is used as swap"


def _locks(path: Path, *, read_only: bool) -> Iterator[str]:
    """Yield a text if another program holds a lock that conflicts (fcntl(2), ``F_OFD_GETLK``)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        wanted = fcntl.F_RDLCK if read_only else fcntl.F_WRLCK
        asked = struct.pack("hhqqi4x", wanted, os.SEEK_SET, 0, 0, 0)
        (lock,) = struct.unpack_from("h", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError:
        return  # a file system without locks
    finally:
        os.close(fd)
    if lock != fcntl.F_UNLCK:
        yield "another program has it open as a disk"
