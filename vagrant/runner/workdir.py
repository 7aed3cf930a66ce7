"""The files of one run: the guest's command, its results, its scratch disk; removed after the run.

A small janitor process waits until every process that holds this run's lifeline has ended, then removes the
folder. The runner, virtme-run and QEMU hold it, so the folder is removed even if the runner is killed. Knows
no QEMU option.
"""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from vagrant.runner.errors import VmError

JANITOR = 'cat >/dev/null; exec rm -rf -- "$1"'
JANITOR_LIMIT = 20.0
PASSED_ON = ("CI", "COLUMNS", "FORCE_COLOR", "LANG", "LC_ALL", "NO_COLOR", "PYTEST_ADDOPTS", "TERM", "TZ")
"""Variables that the guest's command inherits, in addition to the VSCSIHBA_ ones."""

GUEST_SETS = ("VSCSIHBA_IN_VM", "VSCSIHBA_RESULTS", "VSCSIHBA_SCRATCH")
"""Variables that guest/enter.sh sets itself."""


@dataclass(frozen=True)
class GuestResult:
    """The result of the command in the guest, as far as it is known."""

    ready_at: float | None
    """Start of the command, in seconds since the epoch."""
    exit_code: int | None
    failure: str | None
    """The step of the guest's preparation that failed."""


class WorkDir:
    """The folder of one run, removed after the last process of the run; a context manager."""

    def __init__(self, parent: Path | None = None) -> None:
        base = parent or Path(os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108 - mkdtemp makes a private folder
        self.path = Path(tempfile.mkdtemp(prefix="vscsihba-vm-", dir=base))
        self.share = self.path / "share"
        self.scratch = self.path / "scratch.img"
        self.console = self.path / "console.log"
        self.pidfile = self.path / "qemu.pid"
        (self.share / "results").mkdir(parents=True)
        reader, self.lifeline = os.pipe()
        self._janitor = subprocess.Popen(
            ["sh", "-c", JANITOR, "janitor", str(self.path)],
            stdin=reader,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        os.close(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.lifeline)
        self._janitor.wait(JANITOR_LIMIT)

    def write_command(self, command: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> None:
        """Write the lines of shell that the guest runs: variables, folder, and the command as given."""
        passed = {
            name: value
            for name, value in environ.items()
            if name in PASSED_ON or (name.startswith("VSCSIHBA_") and name not in GUEST_SETS)
        }
        exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(passed.items())]
        lines = [*exports, f"cd {shlex.quote(str(cwd))}", f"exec {shlex.join(command)}"]
        (self.share / "command").write_text("\n".join(lines) + "\n")

    def make_scratch(self, size: str) -> None:
        """Create the sparse raw image that the guest mounts, an ext4 of `size` (as mkfs.ext4 reads it)."""
        lazy = "lazy_itable_init=1,lazy_journal_init=1"
        done = subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", lazy, str(self.scratch), size],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise VmError(f"cannot make a scratch disk of {size}: {done.stderr.strip()}")

    def result(self) -> GuestResult:
        """Return the result of the command so far."""
        ready, code, failure = (self.share / name for name in ("ready", "exit", "failure"))
        text = code.read_text().strip() if code.exists() else ""
        return GuestResult(
            ready_at=ready.stat().st_mtime if ready.exists() else None,
            exit_code=int(text) if text.isdigit() else None,
            failure=failure.read_text().strip() if failure.exists() else None,
        )
