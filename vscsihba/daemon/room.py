"""Whether a file or device can have the size that a document says. Knows the file handler's options."""

import os
from pathlib import Path

from vscsihba.daemon.holders import size_of_device
from vscsihba.daemon.media import Medium
from vscsihba.errors import ConfigError
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.units import exact_size, format_size, parse_size


def check_size(medium: Medium) -> None:
    """Refuse a size that a file or device cannot have.

    Raises:
        ConfigError: It has more already, or its file system never has that much.
    """
    said = medium.layer.document.get("size")
    if said is None or not issubclass(medium.layer.kind, FileHandler):
        return
    wanted, has = parse_size(str(said)), _size(medium)
    place = f"{medium.layer.place}.size"
    once = medium.layer.document.get("create") is True
    if has is not None and has > wanted and not once:
        raise ConfigError(
            place,
            f"{medium.path} has {exact_size(has)} already, and no disk shrinks",
            cure=f'say "size": "{exact_size(has)}", or leave it out',
        )
    if has is None or not (once or medium.key[0] == "block"):
        preallocated = has is None and medium.layer.document.get("preallocation", "none") != "none"
        _check_room(medium.path, place, wanted, preallocated=preallocated)


def _size(medium: Medium) -> int | None:
    """Return the bytes that a file or device has, None if there is none."""
    if medium.key[0] == "block":
        return size_of_device(medium.key)
    try:
        return medium.path.stat().st_size
    except OSError:
        return None


def _check_room(path: Path, place: str, wanted: int, *, preallocated: bool) -> None:
    """Refuse a file that its file system can never hold, even when all else in it is removed."""
    try:
        system = os.statvfs(path.parent)
    except OSError:
        return  # the handler says that better
    most, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    if most and wanted > most:
        raise ConfigError(
            place,
            f"{exact_size(wanted)} is more than the whole file system of {path} ({format_size(most)})",
            cure="choose a smaller size, or another file system",
        )
    if preallocated and wanted > free:
        raise ConfigError(
            place,
            f"{exact_size(wanted)} cannot be set aside for {path}: {format_size(free)} are free",
            cure='choose a smaller size, or leave "preallocation" out',
        )
