"""Foreign objects: backstores and targets of other programs, such as targetcli and tcmu-runner.

Only read, to show them; nothing here changes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vscsihba.configfs import observer, paths

_NO_TARGETS: Final = frozenset({"core", "discovery_auth", "hba_info", "version", "dbroot"})
"""Entries of configfs' ``target`` that are no fabrics, and of a fabric that are no targets."""


@dataclass(frozen=True, slots=True)
class ForeignObject:
    """A backstore or target of another program.

    Attributes:
        kind: One of the two.
        name: Its directory below ``target/core`` or ``target``, such as ``fileio_0/disk1``.
        text: A description.
    """

    kind: Literal["backstore", "target"]
    name: str
    text: str


def foreign_objects() -> list[ForeignObject]:
    """Return the objects of other programs, backstores first; none if no target module is loaded."""
    return [*_backstores(), *_targets()]


def _backstores() -> Iterator[ForeignObject]:
    for directory in sorted(paths.core().glob("*_*/*")):
        if directory.name in _NO_TARGETS or not (directory / "attrib").is_dir():
            continue
        if not observer.is_our_backstore(directory):
            yield ForeignObject("backstore", f"{directory.parent.name}/{directory.name}", _about(directory))


def _about(directory: Path) -> str:
    """Return the storage behind a backstore, and whether the backstore works."""
    storage = paths.read(directory / "attrib" / "dev_config") or paths.read(directory / "udev_path")
    state = "" if paths.read_int(directory / "enable") == 1 else "not enabled"
    return ", ".join(part for part in (storage, state) if part)


def _targets() -> Iterator[ForeignObject]:
    for fabric in paths.entries(paths.CONFIGFS / "target"):
        if fabric.name in _NO_TARGETS or not fabric.is_dir():
            continue
        for target in paths.entries(fabric):
            if target.name in _NO_TARGETS or not target.is_dir():
                continue
            if fabric == paths.loopback() and observer.hba(target) is not None:
                continue
            luns = len(list(target.glob("tpgt_*/lun/lun_*")))
            yield ForeignObject("target", f"{fabric.name}/{target.name}", f"{luns} LUN{'s' * (luns != 1)}")
