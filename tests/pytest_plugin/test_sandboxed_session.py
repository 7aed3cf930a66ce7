"""Complete sessions in the sandbox, as an ordinary user: the examples of docs/pytest.md, and a failure."""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal
from vscsihba.sandbox.kernels import installed
from vscsihba.sandbox.surroundings import INSIDE

TOP = Path(__file__).resolve().parents[2]
NOBODY = 65534
"""User and group that the sessions run as where these tests run as root."""
LIMIT = 300
"""Seconds for a session, on a machine with a lot of other work."""

pytestmark = pytest.mark.timeout(LIMIT + 60)


def setpriv() -> list[str]:
    """Return the start of a command that an ordinary user runs."""
    if os.getuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]


def missing(home: Path) -> str | None:
    """Return the reason why an ordinary user cannot have a sandbox on this machine, None if there is none."""
    if INSIDE in os.environ:
        return "a machine that is no sandbox itself"
    if not installed(cache=home):
        return "User-Mode Linux (apt-get install user-mode-linux)"
    tried = subprocess.run(
        [*setpriv(), sys.executable, "-c", "import pytest, vscsihba.pytest_plugin"],
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if tried.returncode == 0 else f"{TOP} and {sys.executable} to be readable for every user"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder of an ordinary user, with access for all."""
    with tempfile.TemporaryDirectory(prefix="vscsihba-test-", dir="/var/tmp") as name:
        if os.getuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        if (lacking := missing(Path(name))) is not None:
            pytest.skip(f"needs {lacking}")
        yield Path(name)


@pytest.fixture
def project(home: Path) -> Path:
    """A project with the examples of the page, and a test that fails."""
    examples = "\n\n".join(
        re.findall(r"```python\n(.*?)```", (TOP / "docs/pytest.md").read_text(), re.DOTALL)
    )
    folder = home / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--vscsi-sandbox"\n')
    (folder / "test_page.py").write_text(examples)
    (folder / "program.py").write_text("def first_byte(path):\n    return open(path, 'rb').read(1)\n")
    (folder / "test_program.py").write_text(
        "import program\n\n"
        "def test_a_fault(vscsi_disk, tmp_path):\n"
        "    path = vscsi_disk('8MiB').path\n"
        "    assert (path.exists(), tmp_path.exists()) == (True, True)\n"
        "    assert program.first_byte(path) == b'x', 'no x'\n\n"
        "def test_later(): print('later')\n"
    )
    if os.getuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **more}


def run(project: Path, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a session to its end, as an ordinary user without a terminal."""
    return subprocess.run(
        [*setpriv(), sys.executable, "-m", "pytest", *arguments],
        cwd=project, env=environment(home), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip


def test_the_examples_pass_and_a_fault_is_reported(project: Path, home: Path) -> None:
    pytest.importorskip("pytest_cov")
    done = run(project, home, "--vscsi-required", "--junitxml", str(home / "reports/r.xml"), "--cov=program")
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert re.search(r"^=+ 1 failed, 4 passed in .* =+$", done.stdout, re.MULTILINE), told
    assert "AssertionError: no x" in done.stdout
    assert re.search(r"^program\.py +2 +0 +100%$", done.stdout, re.MULTILINE), told
    assert done.stderr == ""

    suite = ET.parse(home / "reports/r.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("5", "1", "0")
    written = [home / "reports/r.xml", project / ".coverage", project / ".pytest_cache/v/cache/lastfailed"]
    owner = project.stat().st_uid
    assert [path.stat().st_uid for path in written] == [owner] * 3
    assert owner != 0
    assert sorted(path.name for path in home.iterdir()) == [".cache", "project", "reports"]


def test_a_session_on_a_terminal(project: Path, home: Path) -> None:
    command = [*setpriv(), sys.executable, "-m", "pytest", "-x", "-s", "-k", "test_a_fault or later"]
    more = {"PYTEST_ADDOPTS": "-p no:cacheprovider"}
    with Terminal(["env", "-C", str(project), *command], environment(home, **more)) as terminal:
        assert terminal.end() == 1
    assert re.search(r"^=+ 1 failed, 3 deselected in .* =+$", terminal.text, re.MULTILINE), terminal.text
    assert terminal.coloured
    assert "later" not in terminal.text
    (headline,) = re.findall(r"^=+ FAILURES =+$", terminal.text, re.MULTILINE)
    assert len(headline) == 100
    assert not (project / ".pytest_cache").exists()


def test_workers_of_xdist_run_in_the_sandbox(project: Path, home: Path) -> None:
    pytest.importorskip("pytest_cov")
    pytest.importorskip("xdist")
    arguments = [
        "-n",
        "2",
        "-k",
        "not fault",
        "--vscsi-required",
        "--cov=program",
        "--cov-report=xml:cov.xml",
    ]
    done = run(project, home, *arguments)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "created: 2/2 workers" in done.stdout, told
    assert re.search(r"^=+ 4 passed in .* =+$", done.stdout, re.MULTILINE), told
    assert ET.parse(project / "cov.xml").getroot().get("lines-covered") == "1"
