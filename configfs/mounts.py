"""Mounts, also those of other mount namespaces: containers, services with a private /tmp, ``unshare -m``.

Reads /proc (proc(5), mountinfo), so a namespace without a process is not seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vscsihba.configfs import paths


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        number: ``major:minor`` of its device; of no device for btrfs and others that have several.
        sources: The device nodes that it was mounted from.
        place: The mount point, as the processes of its namespace see it.
        further: The nodes of other devices that it uses, such as an external log.
        seen_by: A process of another mount namespace, ``sleep (pid 4711)``; empty in this namespace.
    """

    number: str
    sources: tuple[str, ...]
    place: str
    further: tuple[str, ...] = ()
    seen_by: str = ""

    def __str__(self) -> str:
        return f"{self.place} in the mount namespace of {self.seen_by}" if self.seen_by else self.place


def mounts() -> Iterator[Mount]:
    """Yield every mount, those of this process's namespace first."""
    own = paths.PROC / "self"
    text = paths.read(own / "mountinfo") or ""
    yield from _parsed(text, "")
    seen = {text, _namespace(own) or text}
    for process in paths.entries(paths.PROC):
        if not process.name.isdecimal() or (namespace := _namespace(process)) in seen:
            continue
        text = paths.read(process / "mountinfo") or ""
        if text not in seen:
            yield from _parsed(text, f"{paths.read(process / 'comm')} (pid {process.name})")
        seen |= {text} if namespace is None else {text, namespace}


def unescaped(text: str) -> str:
    """Undo the octal escapes of /proc: blank, tab, newline, backslash."""
    for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, plain)
    return text


def _namespace(process: Path) -> str | None:
    """Return the name of a process's mount namespace, None if it has ended or may not be read."""
    try:
        return str((process / "ns/mnt").readlink())
    except OSError:
        return None


def _parsed(text: str, seen_by: str) -> Iterator[Mount]:
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) > 4 and len(rest) > 1:
            options = rest[2].split(",") if len(rest) > 2 else []
            further = [
                value for key, _, value in (each.partition("=") for each in options) if key in _FURTHER
            ]
            sources = tuple(unescaped(rest[1]).split(":/"))  # bcachefs: /dev/sda:/dev/sdb
            nodes = (sources[0], *(f"/{source}" for source in sources[1:]))
            yield Mount(fields[2], nodes, unescaped(fields[4]), tuple(map(unescaped, further)), seen_by)


_FURTHER = ("logdev", "rtdev", "journal_path")
"""Mount options that name another device: xfs(5), ext4(5)."""
