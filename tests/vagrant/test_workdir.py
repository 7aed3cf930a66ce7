import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vagrant.runner.errors import VmError
from vagrant.runner.workdir import GuestResult, WorkDir

ROOT = Path(__file__).resolve().parents[2]


def run_command_file(work: WorkDir) -> str:
    """Run the command file as the guest does."""
    script = f'(. "{work.share}/command")'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    return done.stdout


def test_the_command_arrives_exactly_as_given(tmp_path: Path) -> None:
    awkward = ["printf", "%s|", "two words", "$HOME", "it's", "", "a\nb", "*", "--"]
    with WorkDir(tmp_path) as work:
        work.write_command(awkward, Path("/"), {})
        assert run_command_file(work) == "two words|$HOME|it's||a\nb|*|--|"


def test_the_command_runs_in_the_callers_folder(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    with WorkDir(tmp_path) as work:
        work.write_command(["pwd"], folder, {})
        assert run_command_file(work).strip() == str(folder)


def test_only_chosen_variables_are_passed_on(tmp_path: Path) -> None:
    environ = {"CI": "true", "VSCSIHBA_SEED": "a b", "SECRET": "x", "VSCSIHBA_SCRATCH": "the host's"}
    with WorkDir(tmp_path) as work:
        work.write_command(["env"], Path("/"), environ)
        lines = run_command_file(work).splitlines()
    assert {"CI=true", "VSCSIHBA_SEED=a b"} <= set(lines)
    assert not [line for line in lines if line.startswith(("SECRET=", "VSCSIHBA_SCRATCH="))]


def test_the_result_is_read_from_the_share(tmp_path: Path) -> None:
    with WorkDir(tmp_path) as work:
        assert work.result() == GuestResult(None, None, None)
        (work.share / "ready").touch()
        os.utime(work.share / "ready", (5, 5))
        (work.share / "exit").write_text("3\n")
        (work.share / "failure").write_text("line 7: false\n")
        assert work.result() == GuestResult(5.0, 3, "line 7: false")


def test_the_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with WorkDir(tmp_path) as work:
        assert work.share.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_gone_when_the_runner_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path; from vagrant.runner.workdir import WorkDir\n"
        "work = WorkDir(Path(sys.argv[1])); print(work._janitor.pid, flush=True); signal.pause()"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with runner:
        assert runner.stdout is not None
        janitor = os.pidfd_open(int(runner.stdout.readline()))
        assert len(list(tmp_path.iterdir())) == 1
        runner.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([janitor], [], [], 30)
    os.close(janitor)
    assert ended
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="no mkfs.ext4 (e2fsprogs)")
def test_the_scratch_disk_is_sparse_ext4(tmp_path: Path) -> None:
    with WorkDir(tmp_path) as work:
        work.make_scratch("1G")
        found = work.scratch.stat()
        with work.scratch.open("rb") as image:
            image.seek(1024 + 56)
            magic = image.read(2)
    assert found.st_size == 1 << 30
    assert found.st_blocks * 512 < 64 << 20
    assert magic == b"\x53\xef"


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="no mkfs.ext4 (e2fsprogs)")
def test_a_nonsense_scratch_size_is_refused(tmp_path: Path) -> None:
    with WorkDir(tmp_path) as work, pytest.raises(VmError, match="scratch disk of much"):
        work.make_scratch("much")
