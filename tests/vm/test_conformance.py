"""libiscsi's conformance tests against our disk: the families that a disk cannot do without."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.conftest import Serve

MiB = 1 << 20
FAMILIES = (
    "Inquiry",
    "Read10",
    "Read16",
    "ReadCapacity10",
    "ReadCapacity16",
    "TestUnitReady",
    "Write10",
    "Write16",
)


def listed(family: str) -> list[str]:
    """Return the tests of a family, as the tool lists them."""
    text = subprocess.run(["iscsi-test-cu", "--list"], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(rf"\bALL\.{family}\.\w+", text)))


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_no_failure(family: str, serve: Serve, image: Callable[..., Path]) -> None:
    tests = listed(family)
    assert tests, f"iscsi-test-cu lists no tests of {family}"
    target = serve([image("a.img", 256 * MiB)])
    verdicts = {name: judge(name, target.luns[0].sg) for name in tests}
    assert {name: verdict for name, verdict in verdicts.items() if verdict not in ("passed", "skipped")} == {}
    assert "passed" in verdicts.values()
    assert target.stop() == 0


def judge(name: str, sg: Path) -> str:
    """Run one test in a process of its own: ``passed``, ``skipped``, or why it failed."""
    done = subprocess.run(
        ["iscsi-test-cu", "--dataloss", "--allow-sanitize", "-V", "-t", name, str(sg)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    report = (done.stdout + done.stderr).partition("Suite:")[2]
    if "FAILED" in report or not report:
        return f"failed (exit {done.returncode}):\n{report}"
    return "skipped" if "[SKIPPED]" in report else "passed"
