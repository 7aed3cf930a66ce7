"""A server is killed at every line; a successor finishes, and no command gets two responses.

The scenarios and the checks are in `tests.tcmu.mortal`.
"""

import subprocess
import sys

import pytest

from tests.tcmu.mortal import SCENARIOS


def survive(*arguments: str) -> int:
    """Run one campaign in a small process, where a fork is cheap; return the number of killed servers."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tcmu.mortal", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, "\n".join((*done.stdout.splitlines()[-1:], done.stderr))
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"small"}))
def test_killed_at_every_line(name: str) -> None:
    assert survive(name) > 300


def test_a_process_killed_at_every_line() -> None:
    assert survive("small", "forked") > 300


@pytest.mark.parametrize("name", ["held-back", "management"])
def test_killed_again_while_recovering(name: str) -> None:
    assert survive(name, "twice") > 300
