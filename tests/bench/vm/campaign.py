"""The run in a VM, from here: start it, show how far it is, take in what it finds."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench.vm.findings import Finding, Findings
from tests.bench.vm.guest import PARTS

ROOT: Final = Path(__file__).resolve().parents[3]
_LIMIT: Final = 7200


def run(options: argparse.Namespace, console: Console) -> Findings:
    """Run the parts that the options name.

    Raises:
        SystemExit: It did not come to its end.
    """
    command = [str(ROOT / "dev"), "vm", "--timeout", str(_LIMIT), "--"]
    command += [sys.executable, "-m", "tests.bench.vm.guest", *_words(options)]
    guest = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert guest.stdout is not None
    found: list[Finding] = []
    try:
        with console.status("starting the VM") as status:
            for line in guest.stdout:
                found.append(json.loads(line))
                status.update(f"{len(found)} findings; {_title(found[-1])}")
    finally:
        guest.terminate()
        code = guest.wait()
    if code:
        sys.stderr.write(f"bench: the run in the VM ended with exit code {code}\n")
        raise SystemExit(1)
    return Findings(found)


def _words(options: argparse.Namespace) -> Iterator[str]:
    """Yield the options again, as words."""
    for part in options.part or PARTS:
        yield f"--part={part}"
    yield from (f"--peer={peer}" for peer in options.peer or ())
    yield from (f"--workload={words}" for words in options.workload or ())
    rounds, seconds = (1, 0.5) if options.quick else (options.rounds, options.seconds)
    yield from (f"--rounds={rounds}", f"--seconds={seconds}", *["--quick"] * options.quick)


def _title(line: Finding) -> str:
    return " ".join(str(line[key]) for key in ("kind", "workload", "contestant", "luns") if key in line)
