"""Descriptors and mappings of this process, from /proc."""

from pathlib import Path

_SELF = Path("/proc/self")


def descriptors() -> set[str]:
    """Return the numbers of the open descriptors."""
    return {entry.name for entry in (_SELF / "fd").iterdir()}


def is_mapped(path: Path) -> bool:
    """Return whether a file is mapped."""
    return str(path) in (_SELF / "maps").read_text()
