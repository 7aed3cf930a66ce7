"""The shell on a real kernel: scripts, a disk in use, and one that somebody else has taken away."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.daemon import VSCSIHBA, Service, files, shows, vscsihba
from tests.vm.shell import mounted, run
from tests.vm.target import CONFIGFS

MiB = 1 << 20


def script(text: str) -> "subprocess.CompletedProcess[str]":
    """Give the shell a script."""
    return subprocess.run(
        [VSCSIHBA, "shell"], input=text, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture
def disk(service: Service, scratch: Path) -> Path:
    """The disk of the file d1 (64 MiB), LUN 0 of HBA 5."""
    backstores = files(scratch, "d1", size=64)
    service.ask("apply", document={"version": 1, "backstores": backstores, "hbas": [shows(5, "d1")]})
    return service.disk(5, 0).node


def test_a_script_makes_disks_and_stops_at_its_first_error(service: Service, scratch: Path) -> None:
    done = script(f"""
        # two disks
        /backstores/file create name=d1 path={shlex.quote(str(scratch / "with blank.img"))} size=8MiB
        /backstores/memory create name=d2 size=8MiB
        /hbas create 5 engines=2
        /hbas/hba5 create d1
        /hbas/hba5 create d2 lun=7 read_only=true
        /hbas/hba5 create d3
        /hbas delete 5
    """)
    assert done.returncode == 2
    assert done.stderr.startswith("vscsihba: line 8: there is no backstore 'd3'")
    nodes = [service.disk(5, lun).node for lun in (0, 7)]
    assert [(Path("/sys/block") / node.name / "ro").read_text().strip() for node in nodes] == ["0", "1"]
    assert (scratch / "with blank.img").stat().st_size == 8 * MiB


def test_a_mounted_disk_grows_and_is_not_taken_away(disk: Path, scratch: Path) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, scratch / "mnt") as where:
        refused = vscsihba("shell", "/hbas", "delete", "5", code=1)
        assert f"{disk} is mounted on {where}" in refused
        assert "force=true" in refused
        vscsihba("shell", "/hbas/hba5/lun0", "resize", "+64MiB")
        run("resize2fs", disk)
        found = os.statvfs(where)
        assert found.f_blocks * found.f_frsize > 100 * MiB
    done = script("/hbas delete 5\nls\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert not disk.exists()
    assert "no LUN" in done.stdout


def test_what_another_program_removed_is_shown_as_it_is(disk: Path, service: Service) -> None:
    lun = CONFIGFS / "loopback/naa.50014055c51ba005/tpgt_1/lun/lun_0"
    next(entry for entry in lun.iterdir() if entry.is_symlink()).unlink()
    lun.rmdir()
    wait_until(lambda: not disk.exists(), "the end of the disk")
    state = service.lun(5, 0)["state"]
    assert state != "running"
    assert state in vscsihba("shell", "ls")
