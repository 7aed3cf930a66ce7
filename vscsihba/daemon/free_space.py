"""Checks of the size of a backing file: the file system has room for it, and no file shrinks.

Knows the options of the file handler.
"""

import os
from pathlib import Path

from vscsihba.daemon.backing_files import BackingFile
from vscsihba.daemon.holders import size_of_device
from vscsihba.errors import ConfigError
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.units import exact_size, format_size, parse_size


def check_size(file: BackingFile) -> None:
    """Refuse a size that a file or device cannot have.

    Raises:
        ConfigError: The file is larger already, or the file system is smaller.
    """
    size = file.layer.document.get("size")
    if size is None or not issubclass(file.layer.kind, FileHandler):
        return
    wanted, has = parse_size(str(size)), _size(file)
    place = f"{file.layer.place}.size"
    creates = file.layer.document.get("create") is True
    if has is not None and has > wanted and not creates:
        raise ConfigError(
            place,
            f"{file.path} has {exact_size(has)} already, and a disk cannot shrink",
            cure=f'use "size": "{exact_size(has)}", or leave it out',
        )
    if has is None or not (creates or file.key[0] == "block"):
        preallocated = has is None and file.layer.document.get("preallocation", "none") != "none"
        _check_space(file.path, place, wanted, preallocated=preallocated)


def _size(file: BackingFile) -> int | None:
    """Return the size of a file or device in bytes, None if it does not exist."""
    if file.key[0] == "block":
        return size_of_device(file.key)
    try:
        return file.path.stat().st_size
    except OSError:
        return None


def _check_space(path: Path, place: str, wanted: int, *, preallocated: bool) -> None:
    """Refuse a file that is larger than its file system, or that cannot be preallocated."""
    try:
        system = os.statvfs(path.parent)
    except OSError:
        return  # the handler has a better message
    most, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    if most and wanted > most:
        raise ConfigError(
            place,
            f"{exact_size(wanted)} is more than the size of the file system of {path} ({format_size(most)})",
            cure="choose a smaller size, or another file system",
        )
    if preallocated and wanted > free:
        raise ConfigError(
            place,
            f"{exact_size(wanted)} cannot be allocated for {path}: {format_size(free)} are free",
            cure='choose a smaller size, or leave "preallocation" out',
        )
