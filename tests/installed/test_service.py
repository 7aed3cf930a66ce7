"""The installed service: started by systemd from its unit, killed, restarted, saved for a reboot.

The tests build on each other, in the order of the file; the last one leaves the machine ready for a reboot.
"""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installed import record
from tests.installed.service import (
    BROKEN_HBA,
    CONTENT,
    FOLDER,
    PROGRAM,
    UNIT,
    confinement,
    engines,
    luns,
    main_pid,
    run,
    running,
    wait_for_service,
)
from vscsihba.engine.privileges import KEPT

# HBA ids that no other test uses: these disks stay until the machine is booted again, and after it.
DOCUMENT = {
    "version": 1,
    "backstores": {
        "data": {"handler": "file", "path": str(FOLDER / "data.img"), "size": "256MiB"},
        "scratch": {"handler": "memory", "size": "64MiB", "label": "scratch"},
        "netdev": {"handler": "file", "path": str(FOLDER / "netdev.img"), "size": "64MiB"},
    },
    "hbas": [
        {"id": 200, "engines": 2, "luns": [{"lun": 0, "backstore": "data"}]},
        {
            "id": 201,
            "luns": [
                {"lun": 0, "backstore": "scratch"},
                {"lun": 1, "backstore": "netdev"},
            ],
        },
    ],
}
SYS_ADMIN, SYS_MODULE, SYS_PTRACE = 21, 16, 19
"""Capabilities of the service: configfs, modules, open files of other processes (linux/capability.h)."""
NEEDED = {
    *("cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_ipc_lock", "cap_kill"),
    *("cap_setpcap", "cap_sys_admin", "cap_sys_module", "cap_sys_ptrace", "cap_sys_rawio"),
    "cap_sys_resource",  # PR_SET_IO_FLUSHER of the engines, which drop it then
}
"""The restrictions of the service, as systemd reports them."""


@pytest.fixture
def mounted() -> Iterator[Path]:
    """The first disk's file system."""
    where = FOLDER / "mnt"
    where.mkdir(parents=True, exist_ok=True)
    run("mount", luns()[0]["device"], where)
    yield where
    run("umount", where)


def test_the_unit_is_the_packaged_one_and_starts_with_the_machine(installed: Path) -> None:
    assert run("systemctl", "is-enabled", UNIT).strip() == "enabled"
    assert run("systemctl", "is-active", UNIT).strip() == "active"
    told = run("systemctl", "cat", UNIT)
    assert str(installed / "bin/vscsihba") in told


def test_systemd_finds_nothing_wrong_with_the_unit() -> None:
    path = run("systemctl", "show", "--property=FragmentPath", "--value", UNIT).strip()
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    about_it = [line for line in (done.stdout + done.stderr).splitlines() if UNIT in line]
    assert (done.returncode, about_it) == (0, [])


def test_a_document_becomes_disks(tmp_path: Path) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "disks.json").write_text(json.dumps(DOCUMENT))
    run(PROGRAM, "apply", FOLDER / "disks.json")
    assert running()
    assert [lun["size"] for lun in luns()] == [256 << 20, 64 << 20, 64 << 20]
    for number in (0, 2):
        run("mkfs.ext4", "-q", luns()[number]["device"])


def test_the_service_can_do_little_more_than_it_needs() -> None:
    found = confinement(main_pid())
    assert (found["NoNewPrivs"], found["Seccomp"]) == (1, 2)
    for number in (SYS_ADMIN, SYS_MODULE, SYS_PTRACE):
        assert found["CapEff"] >> number & 1
    assert found["CapEff"] == found["CapBnd"]
    listed = run("systemctl", "show", "--property=CapabilityBoundingSet", "--value", UNIT).split()
    assert set(listed) == NEEDED
    assert found["CapBnd"].bit_count() == len(listed)


def test_engines_have_fewer_privileges_than_the_service() -> None:
    assert len(engines()) == 3
    for pid in engines():
        found = confinement(pid)
        assert (found["NoNewPrivs"], found["Seccomp"]) == (1, 2)
        assert found["CapEff"] == found["CapBnd"] == sum(1 << number for number in KEPT.values())


def test_a_restart_of_the_service_leaves_a_mounted_disk_alone(mounted: Path) -> None:
    before = main_pid()
    (mounted / "file").write_bytes(CONTENT)
    run("systemctl", "restart", UNIT)
    assert main_pid() not in {0, before}
    wait_for_service(running, "the service with all its disks")
    run("sync", "--file-system", mounted)
    assert (mounted / "file").read_bytes() == CONTENT


def test_systemd_starts_a_service_again_that_was_killed(mounted: Path) -> None:
    before = main_pid()
    run("systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT)
    wait_for_service(lambda: main_pid() not in {0, before} and running(), "another service")
    (mounted / "more").write_bytes(CONTENT)
    run("sync", "--file-system", mounted)
    assert (mounted / "file").read_bytes() == CONTENT


def test_an_engine_that_is_killed_is_replaced(mounted: Path) -> None:
    before = engines()
    victim = luns()[0]["engine"]
    os.kill(victim, signal.SIGKILL)
    (mounted / "again").write_bytes(CONTENT)
    run("sync", "--file-system", mounted)
    wait_for_service(lambda: running() and len(engines()) == len(before), "another engine")
    assert victim not in engines()
    assert (mounted / "again").read_bytes() == CONTENT


def test_a_file_system_of_fstab_is_left_mounted_for_the_shutdown() -> None:
    """The line is that of docs/daemon.md; nothing is synced."""
    folder = FOLDER / "netdev"
    folder.mkdir(exist_ok=True)
    options = "defaults,_netdev,x-systemd.requires=vscsihba.service"
    with Path("/etc/fstab").open("a") as fstab:
        fstab.write(f"{luns()[2]['by_id']} {folder} ext4 {options} 0 2\n")
    run("systemctl", "daemon-reload")
    run("mount", folder)
    (folder / "file").write_bytes(CONTENT)


def test_a_saved_document_is_left_for_the_next_boot(mounted: Path) -> None:
    """The saved document gets an entry that nobody can read, as after an update that went wrong."""
    run(PROGRAM, "save")
    saved = Path("/etc/vscsihba/config.json")
    document = json.loads(saved.read_text())
    document["backstores"]["broken"] = {"handler": "of-another-version", "path": "/srv/broken.img"}
    document["hbas"].append({"id": BROKEN_HBA, "luns": [{"lun": 0, "backstore": "broken"}]})
    saved.write_text(json.dumps(document))
    digest = hashlib.sha256((mounted / "file").read_bytes()).hexdigest()
    record.leave(digest=digest, by_id=[lun["by_id"] for lun in luns()])
