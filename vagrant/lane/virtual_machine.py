"""One virtual machine of the lane: its namespaces, its time limit, its results.

Everything that inside.sh starts is in a PID namespace whose first process dies with this process; mounts and
networks are in namespaces that disappear with the last process. Files are in a WorkDir, which is always
removed. Knows neither Vagrant nor libvirt.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vagrant.runner import process
from vagrant.runner.errors import NOT_RUN, TIMED_OUT
from vagrant.runner.workdir import WorkDir

INSIDE = Path(__file__).resolve().parent / "inside.sh"
NAMESPACES = "unshare --net --mount --pid --fork --mount-proc --kill-child"
WAY_IN = f'VM_OUTER=$$ exec setpriv --pdeathsig KILL -- {NAMESPACES} -- "$@"'
"""A line of shell; VM_OUTER is the process whose network and mounts `nsenter` enters."""


@dataclass(frozen=True)
class MachineResult:
    """The result of one machine."""

    code: int
    closing: list[str]
    """The summary lines of the tests that were run."""
    times: list[str]
    """A line "SECONDS STEP" for each step that was done."""
    logs: Path | None
    """The folder with console, journal and logs if the machine failed."""


def run_machine(
    version: str, tests: Sequence[str], build: Path, limit: float, inside: Path = INSIDE
) -> MachineResult:
    """Run the machine of a kernel version; results and logs are written below `build`.

    Raises:
        StoppedError: A signal ended it; the logs are kept.
    """
    kept = build / "vagrant-logs" / version
    shutil.rmtree(kept, ignore_errors=True)
    with WorkDir() as work:
        # libvirt's user must be able to enter it.
        work.path.chmod(0o711)
        command = ["sh", "-c", WAY_IN, "sh", str(inside)]
        code = NOT_RUN
        try:
            process.run_streaming([*command, str(work.path), f"linux-{version}", *tests], work, limit)
            code = int(_text(work.path / "code") or NOT_RUN)
        except process.TimeLimitError:
            code = TIMED_OUT
        finally:
            if code != 0:
                _keep(work.path / "logs", kept)
        _keep(work.path / "results", build / "vm-results" / f"vagrant-{version}")
        closing, times = (_text(work.path / name).splitlines() for name in ("closing", "times"))
    return MachineResult(code, closing, times, None if code == 0 else kept)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _keep(folder: Path, where: Path) -> None:
    if folder.is_dir():
        where.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, where, dirs_exist_ok=True)
