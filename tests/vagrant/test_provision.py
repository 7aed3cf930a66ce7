"""provision.sh and test.sh on a kernel that lacks a module: one line, and nothing else is tried."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: provision.sh does")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a test.sh that fails if it runs the tests."""
    shutil.copytree(VAGRANT, tmp_path / "vagrant", ignore=shutil.ignore_patterns(".vagrant"))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/modprobe"
    program.write_text('#!/bin/sh\necho "$@" >>"$0.log"\ncase $* in *tcm_loop*) exit 1 ;; esac\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    "script", [["vagrant/provision.sh", "kernel"], ["vagrant/test.sh"], ["vagrant/test.sh", "tests/vm"]]
)
def test_a_kernel_without_a_module_is_one_line(tree: Path, script: list[str]) -> None:
    environment = {**os.environ, "PATH": f"{tree}/bin:{os.environ['PATH']}"}
    done = subprocess.run(script, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"provision.sh: the kernel {os.uname().release} lacks tcm_loop: "
        "boot one that has them, such as Debian's linux-image-amd64\n"
    )
    asked = (tree / "bin/modprobe.log").read_text()
    assert all(module in asked for module in ("target_core_user", "tcm_loop", "sg"))


def test_a_step_that_there_is_not(tree: Path) -> None:
    done = subprocess.run(
        [tree / "vagrant/provision.sh", "kernle"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "provision.sh: unknown step kernle\n")
