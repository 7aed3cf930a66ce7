"""The installed service from outside: systemctl, the program's JSON, and disks as the kernel has them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.polling import wait_until

UNIT = "vscsihba.service"
PROGRAM = "/usr/local/bin/vscsihba"
FOLDER = Path("/srv/vscsihba-tests")
CONTENT = bytes(range(256)) * 4096
BROKEN_HBA = 202
"""An HBA of the saved document whose LUN cannot be read."""
LIMIT = 300.0
"""Seconds for each wait: software emulation is slow."""


def run(*words: str | Path, check: bool = True) -> str:
    """Run a program and return its output; fail with that output if the exit code is not 0."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    said = f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    assert not check or done.returncode == 0, said
    return done.stdout


def wait_for_service(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail with `what` and the service's log if it does not become true."""

    def failure() -> str:
        log = run("journalctl", "--unit", UNIT, "--lines=60", "--no-pager", check=False)
        return f"{what}\n{log}"

    wait_until(condition, failure, limit=LIMIT, pause=0.2)


def main_pid() -> int:
    """Return the process of the service, 0 where there is none."""
    return int(run("systemctl", "show", "--property=MainPID", "--value", UNIT))


def engines() -> list[int]:
    """Return the processes that serve disks."""
    status = json.loads(run(PROGRAM, "status", "--json"))
    return [engine["pid"] for hba in status["hbas"] for engine in hba["engines"]]


def confinement(pid: int) -> dict[str, int]:
    """Return the privileges of a process, by /proc: NoNewPrivs, Seccomp, and masks of capabilities."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    numbers = {words[0].rstrip(":"): words[1] for words in lines if len(words) == 2}
    masks = {name: int(text, 16) for name, text in numbers.items() if name.startswith("Cap")}
    return {**masks, "NoNewPrivs": int(numbers["NoNewPrivs"]), "Seccomp": int(numbers["Seccomp"])}


def luns() -> list[dict[str, Any]]:
    """Return every LUN as ``vscsihba status --json`` tells of it."""
    status = json.loads(run(PROGRAM, "status", "--json"))
    return [lun for hba in status["hbas"] for lun in hba["luns"]]


def running(*, but: int | None = None) -> bool:
    """Return whether the service answers and serves all its disks, but those of one HBA."""
    found = json.loads(run(PROGRAM, "status", "--json", check=False) or "{}")
    disks = [lun for hba in found.get("hbas", ()) if hba["id"] != but for lun in hba["luns"]]
    return bool(found.get("daemon")) and bool(disks) and all(lun["state"] == "running" for lun in disks)
