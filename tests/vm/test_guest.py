"""The machine that the tests in this folder count on, as the quick VM runner or provision.sh makes it."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["target_core_user", "tcm_loop", "sg", "sd_mod"])
def test_module_is_loaded_or_can_be(module: str) -> None:
    subprocess.run(["modprobe", module], check=True)


def test_configfs_is_mounted() -> None:
    assert os.path.ismount("/sys/kernel/config")


def test_udev_runs() -> None:
    subprocess.run(["udevadm", "control", "--ping"], check=True)


def test_pr_folder_is_there_for_the_kernel() -> None:
    """drivers/target keeps APTPL metadata there, and complains where it is missing."""
    assert Path("/var/target/pr").is_dir()


def test_device_mapper_control_node_loads_its_module() -> None:
    assert "library version" in subprocess.check_output(["dmsetup", "version"], text=True).lower()


def test_scratch_has_room(scratch: Path) -> None:
    found = os.statvfs(scratch)
    assert found.f_bavail * found.f_frsize > 2 << 30


def test_scratch_gives_back_punched_holes(scratch: Path) -> None:
    path = scratch / "holes"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        full = path.stat().st_blocks
        subprocess.run(
            ["fallocate", "--punch-hole", "--offset", "0", "--length", "512KiB", str(path)], check=True
        )
        assert path.stat().st_blocks < full


def test_scratch_has_nowait_reads(scratch: Path) -> None:
    path = scratch / "nowait"
    path.write_bytes(b"x" * 4096)
    with path.open("rb") as file:
        buffer = bytearray(4096)
        os.preadv(file.fileno(), [buffer], 0)
        assert os.preadv(file.fileno(), [buffer], 0, os.RWF_NOWAIT) == 4096
