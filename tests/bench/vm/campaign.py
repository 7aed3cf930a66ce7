"""The run in a VM, from here: start it, show how far it is, take in what it finds."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench.vm import host_clock
from tests.bench.vm.findings import Finding, Findings
from tests.bench.vm.guest import PARTS

ROOT: Final = Path(__file__).resolve().parents[3]
_LIMIT: Final = 7200
_SAVED: Final = ROOT / "build/bench-findings.json"
RUNNERS: Final = {
    "qemu": ("--cpus", "2"),
    "sandbox": ("--runner", "sandbox"),
    "kvm": ("--runner", "kvm"),
    "tcg": ("--runner", "tcg"),
}
"""By name, the words for ``./dev vm``: with two processors it never chooses the sandbox."""


def run(options: argparse.Namespace, console: Console) -> Findings:
    """Run the parts that the options name.

    The findings are written to a file in any case, for ``--from``.

    Raises:
        SystemExit: It did not come to its end.
    """
    command = [*pinned(options.runner), str(ROOT / "dev"), "vm", "--timeout", str(_LIMIT)]
    command += RUNNERS[options.runner]
    command += ["--plain"] * options.plain + ["--"]
    command += [sys.executable, "-m", "tests.bench.vm.guest", "--host-clock", *_words(options)]
    guest = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert guest.stdin is not None
    assert guest.stdout is not None
    found: list[Finding] = []
    try:
        with console.status("starting the VM") as status:
            for line in guest.stdout:
                finding = json.loads(line)
                if finding["kind"] == host_clock.KIND:
                    print(host_clock.process_tree_seconds(guest.pid), file=guest.stdin, flush=True)
                    continue
                found.append(finding)
                status.update(f"{len(found)} findings; {_title(found[-1])}")
                if finding["kind"] == "machine":
                    finding["load"] = load()
    finally:
        guest.terminate()
        code = guest.wait()
        _SAVED.parent.mkdir(exist_ok=True)
        _SAVED.write_text(Findings(found).dump())
    if code:
        sys.stderr.write(f"bench: the run in the VM ended with exit code {code}\n")
        raise SystemExit(1)
    return Findings(found)


def pinned(runner: str) -> tuple[str, ...]:
    """Return words in front of a command that keep it on one processor, where the VM has one.

    The processes of User-Mode Linux take turns. On several processors, each of which other programs use, the
    host often wakes the next one on another processor, and a system call of the guest takes up to six times
    as long as on one: 16 to 99 us instead of 15, at a load of 16.
    """
    if runner != "sandbox":
        return ()
    return "taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))


def load() -> str:
    """Return in words how busy this machine is: programs that wanted a processor in the last minutes."""
    one, five, fifteen = os.getloadavg()
    return f"load average of the host {one:.1f}, {five:.1f}, {fifteen:.1f} on {os.cpu_count()} processors"


def _words(options: argparse.Namespace) -> Iterator[str]:
    """Yield the options again, as words."""
    for part in options.part or PARTS:
        yield f"--part={part}"
    yield from (f"--peer={peer}" for peer in options.peer or ())
    yield from (f"--workload={words}" for words in options.workload or ())
    yield from (f"--stack={words}" for words in options.stack or ())
    rounds, seconds = (1, 0.5) if options.quick else (options.rounds, options.seconds)
    yield from (f"--rounds={rounds}", f"--seconds={seconds}", *["--quick"] * options.quick)
    yield from ["--plain"] * options.plain


def _title(line: Finding) -> str:
    return " ".join(str(line[key]) for key in ("kind", "workload", "contestant", "luns") if key in line)
