"""The Vagrant lane with test scripts instead of inside.sh: the report of a machine, and its leftovers."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.polling import wait_until
from vagrant.lane import cli
from vagrant.lane.virtual_machine import MachineResult, run_machine
from vagrant.runner.errors import NOT_RUN, TIMED_OUT, VmError

LIMIT = 60.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes namespaces")


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Write a script that replaces inside.sh: $1 is the work folder, $2 the machine, then the tests."""

    def write(lines: str) -> Path:
        path = tmp_path / "inside"
        path.write_text(f"#!/bin/bash\nwork=$1\nmkdir -p $work/logs $work/results\n{lines}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a run has its work folder, and must leave nothing."""
    folder = tmp_path / "works"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@needs_root
def test_results_of_a_machine(script: Callable[[str], Path], works: Path, tmp_path: Path) -> None:
    files = 'echo "$2 $3" >$work/closing; echo "3 up" >$work/times; echo x >$work/results/r.xml'
    inside = script(f"{files}; echo 0 >$work/code")
    result = run_machine("6.1", ["tests/a"], tmp_path / "build", LIMIT, inside)
    assert result == MachineResult(0, ["linux-6.1 tests/a"], ["3 up"], None)
    assert (tmp_path / "build/vm-results/vagrant-6.1/r.xml").read_text() == "x\n"
    assert not (tmp_path / "build/vagrant-logs").exists()
    assert list(works.iterdir()) == []


@needs_root
def test_a_failed_machine_is_reported_with_its_logs(
    script: Callable[[str], Path], works: Path, tmp_path: Path
) -> None:
    inside = script(
        "echo '== 1 failed in 2s ==' >$work/closing; echo oops >$work/logs/console.log; echo 1 >$work/code"
    )
    result = run_machine("6.1", [], tmp_path / "build", LIMIT, inside)
    assert (result.code, result.closing) == (1, ["== 1 failed in 2s =="])
    assert result.logs is not None
    assert (result.logs / "console.log").read_text() == "oops\n"


@needs_root
def test_a_machine_that_ends_before_its_tests(
    script: Callable[[str], Path], works: Path, tmp_path: Path
) -> None:
    assert run_machine("6.1", [], tmp_path, LIMIT, script("exit 0")).code == NOT_RUN


@needs_root
def test_the_time_limit(script: Callable[[str], Path], works: Path, tmp_path: Path) -> None:
    inside = script("echo stuck >$work/logs/console.log; sleep 1000")
    result = run_machine("6.1", [], tmp_path / "build", 2, inside)
    assert (result.code, result.closing) == (TIMED_OUT, [])
    assert (tmp_path / "build/vagrant-logs/6.1/console.log").read_text() == "stuck\n"
    wait_until(lambda: not list(works.iterdir()), "an empty folder")


NAP = f"1000.{os.getpid()}"
"""Seconds that the processes of BUSY sleep, which identify those of this run."""
BUSY = """
mkdir $work/mnt && mount -t tmpfs lane-test $work/mnt
ip link add lanetest0 type bridge
setsid sleep {nap} </dev/null >/dev/null 2>&1 &
touch $work/mnt/file
echo $VM_OUTER >{ready}.new && mv {ready}.new {ready}
sleep {nap}
"""
RUN = """
import sys
from pathlib import Path
from vagrant.lane.virtual_machine import run_machine
run_machine("6.1", [], Path(sys.argv[1]), 1000, Path(sys.argv[2]))
"""


def sleepers() -> list[str]:
    """Return the processes of BUSY, in any namespace."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes() == f"sleep\0{NAP}\0".encode():
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_run_that_is_killed(
    script: Callable[[str], Path], works: Path, tmp_path: Path, number: signal.Signals
) -> None:
    ready = tmp_path / "ready"
    command = [
        sys.executable,
        "-c",
        RUN,
        str(tmp_path / "build"),
        str(script(BUSY.format(ready=ready, nap=NAP))),
    ]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        wait_until(ready.exists, "the machine")
        wait_until(lambda: len(sleepers()) == 2, "both of its processes")
        way_in = Path("/proc") / ready.read_text().strip() / "ns"
        for name in ("net", "mnt"):
            assert (way_in / name).readlink() != Path("/proc/self/ns", name).readlink()
        process.send_signal(number)
    wait_until(lambda: not sleepers(), "the end of all processes")
    wait_until(lambda: not list(works.iterdir()), "an empty folder")
    assert "lane-test" not in Path("/proc/self/mounts").read_text()
    assert not Path("/sys/class/net/lanetest0").exists()


@pytest.fixture
def no_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cli, "output_of", lambda program: program)
    monkeypatch.setenv("VM_ACCEL", "tcg")


def test_every_kernel_is_run_and_the_closing_lines_come_last(
    no_box: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(version: str, tests: list[str], build: Path, limit: float) -> MachineResult:
        asked.append((version, tests))
        return MachineResult(3 if version == "6.1" else 0, [f"=== {version} ==="], ["3 up"], None)

    monkeypatch.setattr(cli, "run_machine", run)
    assert cli.main(["--", "tests/x", "-k", "y"]) == 3
    assert asked == [(version, ["tests/x", "-k", "y"]) for version in ("6.1", "6.12")]
    printed = capsys.readouterr()
    assert printed.out == "=== 6.1 ===\n=== 6.12 ===\n"
    assert "of them 3 up\n" in printed.err


@pytest.mark.parametrize(("words", "kept"), [(["--keep"], "1"), ([], "")])
def test_a_machine_is_kept_where_that_is_asked_for(
    no_box: None, monkeypatch: pytest.MonkeyPatch, words: list[str], kept: str
) -> None:
    monkeypatch.setenv("VM_KEEP", "")
    seen = []

    def run(*_: object) -> MachineResult:
        seen.append(os.environ["VM_KEEP"])
        return MachineResult(0, [], [], None)

    monkeypatch.setattr(cli, "run_machine", run)
    assert cli.main(["--kernel", "6.1", *words]) == 0
    assert seen == [kept]


def test_a_kernel_that_there_is_no_machine_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(["--kernel", "5.4"])
    assert refused.value.code == 2
    assert "invalid choice: '5.4'" in capsys.readouterr().err


def test_a_box_that_cannot_be_built(
    no_box: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(program: str) -> str:
        raise VmError(f"vagrant/{program} failed")

    monkeypatch.setattr(cli, "output_of", refuse)
    assert cli.main([]) == NOT_RUN
    assert capsys.readouterr().err == "ci: vagrant/build-box failed\n"


def test_it_must_be_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main([]) == NOT_RUN
    assert capsys.readouterr().err.startswith("ci: must be run as root")
