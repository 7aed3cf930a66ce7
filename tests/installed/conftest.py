"""The machine of these tests; elsewhere they are skipped with the name of the missing thing.

Knows where provision.sh puts the program, and nothing of Vagrant.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

PREFIX = Path("/opt/vscsihba")


def missing() -> str | None:
    """Return the thing that these tests lack here, None when they can run."""
    if not Path("/run/systemd/system").is_dir():
        return "systemd as the first process"
    if not (PREFIX / "bin/vscsitarget").exists():
        return f"vscsihba installed in {PREFIX} (vagrant/provision.sh)"
    return None


@pytest.fixture(scope="session", autouse=True)
def installed() -> Path:
    """The folder that the program is installed in."""
    lacking = missing()
    if lacking is not None:
        pytest.skip(f"needs {lacking}: run vagrant/ci")
    return PREFIX
