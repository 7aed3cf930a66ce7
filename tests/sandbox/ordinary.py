"""An ordinary user that starts the sandbox, and a check for its leftovers.

Root becomes the user 65534 for this; everybody else is one already. Knows processes and folders by
their names, not how the sandbox makes them.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = Path(sys.executable).parent / "vscsihba"
NOBODY: Final = "65534"
LIMIT: Final = 180.0
"""Seconds for one run on a busy machine."""
_FOLDERS: Final = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"))
_PREFIX: Final = "vscsihba-sandbox-"


class OrdinaryUser:
    """A user with a home folder.

    Args:
        home: An empty folder, which becomes the user's.
        wrapper: A program with arguments that starts everything, such as ``unshare``.
    """

    def __init__(self, home: Path, wrapper: Sequence[str] = ()) -> None:
        self.home = home
        self._wrapper = list(wrapper)
        self._become: list[str] = []
        if os.geteuid() == 0:
            os.chown(home, int(NOBODY), int(NOBODY))
            self._become = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]

    def can_read(self, path: Path) -> bool:
        """Tell whether this user may read a file."""
        return subprocess.run([*self._become, "test", "-r", str(path)], check=False).returncode == 0

    def command(self, *words: str) -> list[str]:
        """Return the command line that starts ``vscsihba sandbox`` with `words` as this user."""
        return [*self._become, *self._wrapper, str(PROGRAM), "sandbox", *words]

    def environ(self) -> dict[str, str]:
        """Return the variables of this user's programs; the cache is kept for all tests of a session."""
        return {
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "XDG_CACHE_HOME": str(self.home.parent / "cache"),
        }

    def run(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
        """Run ``vscsihba sandbox`` to its end."""
        given = {"env": self.environ(), "cwd": self.home, "timeout": LIMIT, **options}
        return subprocess.run(self.command(*words), check=False, capture_output=True, **given)

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start ``vscsihba sandbox``."""
        return subprocess.Popen(self.command(*words), env=self.environ(), cwd=self.home, **options)


def owner() -> int:
    """Return the uid of the ordinary user."""
    return int(NOBODY) if os.geteuid() == 0 else os.geteuid()


def folders() -> set[Path]:
    """Return the folders of this user's sandboxes that are there."""
    return {path for folder in _FOLDERS for path in folder.glob(f"{_PREFIX}*") if _is_ours(path)}


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == owner()
    except FileNotFoundError:
        return False


def processes() -> dict[int, str]:
    """Return the processes of this user's sandboxes by pid: janitors, kernels, and their traced processes."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        if not _is_ours(path):
            continue
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = (path / "comm").read_text().strip()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if (name.startswith("linux.uml") or "janitor.py" in words) and state not in ("Z", "X"):
            found[int(path.name)] = words or name
    return found
