"""Who has a file or a block device already: mounts, swap, loop devices, other targets, locks.

Plain reading of /proc, /sys and configfs; a file is opened for reading only. Knows no document.
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
"""What makes two names one thing: the kind, and the numbers of an inode or a device, or the path to be."""


def key_of(path: Path) -> Key:
    """Return what is the same for all names of a file or block device, be it there yet or not."""
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
class Surroundings:
    """Who has what on this machine, looked up once for a whole document.

    Attributes:
        taken: Files and devices that somebody else has, and who, in words for a person.
        ours: The disks of our own LUNs, and which LUN each is.
    """

    taken: Mapping[Key, str]
    ours: Mapping[Key, str]


def look_around() -> Surroundings:
    """Look who has what."""
    ours = {
        key_of(lun.disk): f"LUN {lun.number} of HBA {hba.id}"
        for hba in observer.observe().hbas.values()
        for lun in hba.luns.values()
        if lun.disk is not None
    }
    return Surroundings({**dict(_other_targets()), **dict(_loops()), **dict(_swaps())}, ours)


def holders_of(path: Path, around: Surroundings, *, read_only: bool = False) -> list[str]:
    """Return who has what `path` names, in words for a person; empty if it is free.

    Args:
        path: A file or a block device; one that is not there is free.
        around: Who has what.
        read_only: It will not be written, so others may read it.
    """
    key = key_of(path)
    if key[0] == "new":
        return []
    found = [around.taken[key]] if key in around.taken else []
    device = _sysfs(key)
    if device is None:
        return [*found, *_locks(path, read_only=read_only)]
    return found if read_only else users_of(paths.DEV / device.name) + found


def our_disk(path: Path, around: Surroundings) -> str | None:
    """Return which of our own LUNs a block device is, or is a partition of; None if it is none."""
    key = key_of(path)
    return around.ours.get(key) or around.ours.get(whole_of(key) or key)


def _sysfs(key: Key) -> Path | None:
    """Return the folder of a block device below /sys."""
    if key[0] != "block" or not isinstance(key[1], int):
        return None
    return (paths.SYSFS / "dev" / "block" / f"{os.major(key[1])}:{os.minor(key[1])}").resolve()


def _other_targets() -> Iterator[tuple[Key, str]]:
    """Yield what the backstores of targetcli and its like are made of."""
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
    """Tell whether a program holds a lock that ours would not go with (fcntl(2), ``F_OFD_GETLK``)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        wanted = fcntl.F_RDLCK if read_only else fcntl.F_WRLCK
        asked = struct.pack("hhqqi4x", wanted, os.SEEK_SET, 0, 0, 0)
        (found,) = struct.unpack_from("h", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError:
        return  # a file system without locks
    finally:
        os.close(fd)
    if found != fcntl.F_UNLCK:
        yield "another program has it open as a disk"
