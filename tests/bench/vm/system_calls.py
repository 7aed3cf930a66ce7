"""System calls of an engine for each command, counted by strace."""

import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.vm.peers import Contestant
from tests.bench.vm.workload import Workload, fio
from tests.polling import wait_until


def count(contestant: Contestant, workload: Workload, seconds: float, folder: Path) -> dict[str, Any]:
    """Return how many system calls of which kind there are for each command.

    Threads that only wait (for a signal, for an event) take part with what they call, which is nothing.
    """
    (pid,) = contestant.pids
    log = folder / "strace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-U", "calls,name", "-o", log, "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: _traced(pid), "strace is attached")
    try:
        (job,) = fio([contestant.disk], workload, seconds)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    commands = sum(job[side]["total_ios"] for side in ("read", "write"))
    calls = {}
    for line in log.read_text().splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] != "total":
            calls[words[1]] = int(words[0]) / commands
    return {"workload": workload.name, "calls": calls, "total": sum(calls.values())}


def _traced(pid: int) -> bool:
    return all(
        "TracerPid:\t0" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()
    )
