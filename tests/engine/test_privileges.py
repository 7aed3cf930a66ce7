"""Dropped capabilities, observed in a process that has dropped them."""

import json
import os
import subprocess
import sys

import pytest

from vscsihba.engine.privileges import KEPT

PROBE = """
import json, threading
from vscsihba.engine import privileges
privileges.drop()
found = {}
def look():
    for line in open("/proc/thread-self/status"):
        key, _, value = line.partition(":")
        found[key] = value.strip()
thread = threading.Thread(target=look)
thread.start()
thread.join()
print(json.dumps(found))
"""


def held() -> int:
    """Return the capabilities of this process, as a mask."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        lines = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    return int(lines["CapPrm"], 16)


@pytest.fixture
def status() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    probed: dict[str, str] = json.loads(done.stdout)
    return probed


def test_no_new_privileges(status: dict[str, str]) -> None:
    assert status["NoNewPrivs"] == "1"


def test_only_what_is_needed_is_kept(status: dict[str, str]) -> None:
    kept = sum(1 << number for number in KEPT.values())
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == held() & kept
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0


@pytest.mark.skipif(not held() >> 8 & 1, reason="needs CAP_SETPCAP")
def test_the_way_back_is_closed(status: dict[str, str]) -> None:
    assert int(status["CapBnd"], 16) & ~sum(1 << number for number in KEPT.values()) == 0
