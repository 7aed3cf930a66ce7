"""No byte outside the iovecs of open commands is touched (rule 12); in a process that a fault would end."""

import signal
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.tcmu.guarded", *arguments],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_rule_12_only_live_iovecs_are_touched() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")


def test_the_guard_would_notice() -> None:
    assert run("trespass").returncode == -signal.SIGSEGV
