"""Others: what is in the kernel's target that is not ours, to be shown and never touched.

Plain reading: backstores of targetcli, tcmu-runner and whoever else, and the targets that show them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vscsihba.configfs import observer, paths

_NO_TARGETS: Final = frozenset({"core", "discovery_auth", "hba_info", "version", "dbroot"})
"""Entries of configfs' ``target`` that are no fabrics, and of a fabric that are no targets."""


@dataclass(frozen=True, slots=True)
class Other:
    """An object of somebody else.

    Attributes:
        kind: What it is.
        name: Its directory below ``target/core`` or ``target``, such as ``fileio_0/disk1``.
        text: More about it, for a person.
    """

    kind: Literal["backstore", "target"]
    name: str
    text: str


def others() -> list[Other]:
    """Return every object that is not ours, backstores first; nothing where no target module is loaded."""
    return [*_backstores(), *_targets()]


def _backstores() -> Iterator[Other]:
    for directory in sorted(paths.core().glob("*_*/*")):
        if directory.name in _NO_TARGETS or not (directory / "attrib").is_dir():
            continue
        if not observer.is_our_backstore(directory):
            yield Other("backstore", f"{directory.parent.name}/{directory.name}", _about(directory))


def _about(directory: Path) -> str:
    """Return what a backstore is made of, and whether it works."""
    made_of = paths.read(directory / "attrib" / "dev_config") or paths.read(directory / "udev_path")
    state = "" if paths.read_int(directory / "enable") == 1 else "not enabled"
    return ", ".join(part for part in (made_of, state) if part)


def _targets() -> Iterator[Other]:
    for fabric in paths.entries(paths.CONFIGFS / "target"):
        if fabric.name in _NO_TARGETS or not fabric.is_dir():
            continue
        for target in paths.entries(fabric):
            if target.name in _NO_TARGETS or not target.is_dir():
                continue
            if fabric == paths.loopback() and observer.hba(target) is not None:
                continue
            luns = len(list(target.glob("tpgt_*/lun/lun_*")))
            yield Other("target", f"{fabric.name}/{target.name}", f"{luns} LUN{'s' * (luns != 1)}")
