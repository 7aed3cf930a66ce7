"""The private folder of a run on this machine, which holds the guest's memory.

User-Mode Linux keeps the guest's memory in a file that is mapped executable. Containers often have a small
``/dev/shm``, and hardened machines mount ``/tmp`` noexec, so several folders are tried.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vscsihba.errors import SandboxError
from vscsihba.units import format_size

PREFIX = "vscsihba-sandbox-"
ON_DISK = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - mkdtemp makes a private folder in them


def candidates() -> Iterator[Path]:
    """Yield the folders to try, those in memory first."""
    yield Path("/dev/shm")  # noqa: S108 - likewise
    for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):
        if name := os.environ.get(variable):
            yield Path(name)
    yield from reversed(ON_DISK)


def make_folder(memory: int) -> Path:
    """Create the private folder of a run, on a file system with enough space for the guest's memory.

    Raises:
        SandboxError: No folder is suitable; the message has the reason for each.
    """
    reasons = []
    for parent in dict.fromkeys(candidates()):
        if (reason := _unfit(parent, memory)) is None:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        reasons.append(f"{parent} {reason}")
    raise SandboxError(
        f"no folder for {format_size(memory)} of guest memory: {', '.join(reasons)}",
        cure="set TMPDIR to a larger folder, or choose less with --memory",
    )


def make_disk_folder(beside: Path) -> Path:
    """Create a private folder for a scratch image, on a disk if possible, else return `beside`."""
    parents = [Path(name)] if (name := os.environ.get("TMPDIR")) else []
    for parent in (*parents, *ON_DISK):
        if os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    return beside


def _unfit(parent: Path, memory: int) -> str | None:
    """Return why a folder cannot hold the guest's memory, None if it can."""
    if not parent.is_dir():
        return "does not exist"
    if not os.access(parent, os.W_OK | os.X_OK):
        return "is not writable"
    room = os.statvfs(parent)
    free = room.f_bavail * room.f_frsize
    if free < memory:
        return f"has {format_size(free // (1 << 20) * (1 << 20))} free"
    if any(character in str(parent) for character in ', "\n:'):
        return "has a comma, colon, quote or space in its name"
    return _not_executable(parent)


def _not_executable(parent: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=parent) as file:
            file.truncate(mmap.PAGESIZE)
            mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except PermissionError:
        return "is mounted noexec"
    except OSError as error:
        return f"is not usable ({error.strerror})"
    return None
