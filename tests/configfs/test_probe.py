import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vscsihba.configfs import CHECKS, paths, prepare, probe
from vscsihba.errors import HostError

MODULES = ("target_core_mod", "target_core_user", "tcm_loop", "sd_mod", "sg")


class Machine:
    """A machine in a folder, with a fake modprobe and mount."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.ran: list[list[str]] = []
        self.answer = subprocess.CompletedProcess[str]([], 0, "", "")
        for name in ("SYSFS", "CONFIGFS", "ETC", "MODULES"):
            (root / name.lower()).mkdir()
            monkeypatch.setattr(paths, name, root / name.lower())
        (root / "configfs/target").mkdir()
        (root / "modules" / os.uname().release).mkdir()
        monkeypatch.setattr(shutil, "which", lambda name, **_: f"/sbin/{name}")
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def run(self, command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.ran.append(command)
        return self.answer

    def refuse(self, message: str) -> None:
        self.answer = subprocess.CompletedProcess([], 1, "", f"{message}\n")

    def load(self, *modules: str) -> None:
        for module in modules:
            (self.root / "sysfs/module" / module).mkdir(parents=True)

    def distribution(self, text: str) -> None:
        (self.root / "etc/os-release").write_text(text)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_only_root_may(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="only root can create virtual disks; run it with sudo"):
        prepare()
    assert machine.ran == []


def test_prepare_brings_everything_about(machine: Machine) -> None:
    (machine.root / "configfs/target/dbroot").write_text(f"{machine.root}/db\n")
    prepare()
    mount = ["mount", "-t", "configfs", "configfs", str(machine.root / "configfs")]
    assert machine.ran == [mount, *(["/sbin/modprobe", module] for module in MODULES)]
    assert (machine.root / "db/pr").is_dir()


def test_prepare_changes_nothing_if_all_is_ready(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.root / "configfs/target/dbroot").write_text(f"{machine.root}/db\n")
    monkeypatch.setattr(Path, "is_mount", lambda _path: True)
    machine.load(*MODULES)
    assert all(check.run() for check in CHECKS)
    assert machine.ran == []


def test_configfs_that_the_kernel_lacks(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CONFIGFS", machine.root / "nowhere")
    machine.refuse("modprobe: FATAL: Module configfs not found in directory /lib/modules/6")
    with pytest.raises(HostError, match="has no module configfs"):
        probe.check_configfs()


def test_configfs_that_cannot_be_mounted(machine: Machine) -> None:
    machine.refuse("mount: permission denied")
    with pytest.raises(HostError, match="cannot mount configfs: mount: permission denied"):
        probe.check_configfs()


@pytest.mark.parametrize(
    ("os_release", "cure"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "install linux-image-amd64"),
        ("ID=ubuntu\nID_LIKE=debian\n", "install linux-modules-extra-"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "install kernel-modules"),
        ("ID=slackware\n", "the distribution's standard kernel"),
        ("", "the distribution's standard kernel"),
    ],
)
def test_missing_module_is_named_with_its_cure(machine: Machine, os_release: str, cure: str) -> None:
    machine.distribution(os_release)
    machine.load("target_core_mod")
    machine.refuse("modprobe: FATAL: Module target_core_user not found in directory /lib/modules/6.1")
    with pytest.raises(HostError, match=rf"kernel \S+ has no module target_core_user; .*{cure}"):
        probe.check_modules()


def test_kernel_without_its_modules_wants_a_reboot(machine: Machine) -> None:
    (machine.root / "modules" / os.uname().release).rmdir()
    machine.refuse("modprobe: FATAL: Module tcm_loop not found in directory /lib/modules/6.1")
    with pytest.raises(HostError, match=r"does not exist; reboot into the installed kernel, or install"):
        probe.load_module("tcm_loop")


def test_module_that_is_refused_says_why(machine: Machine) -> None:
    machine.refuse("modprobe: ERROR: could not insert 'tcm_loop': Key was rejected by service")
    with pytest.raises(
        HostError, match=r"refuses to load tcm_loop: .*Key was rejected by service; see dmesg"
    ):
        probe.load_module("tcm_loop")


def test_machine_without_modprobe(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, **_: None)
    with pytest.raises(HostError, match="no modprobe; install kmod"):
        probe.load_module("tcm_loop")


def test_modules_without_the_configfs_folder(machine: Machine) -> None:
    (machine.root / "configfs/target").rmdir()
    with pytest.raises(HostError, match="the kernel shows no"):
        probe.check_modules()


def test_kernel_without_sg_is_good_enough(machine: Machine) -> None:
    machine.refuse("modprobe: FATAL: Module sg not found in directory /lib/modules/6.1")
    assert "no /dev/sgN" in probe.check_generic()


def test_reservations_that_cannot_be_saved(machine: Machine) -> None:
    (machine.root / "file").touch()
    (machine.root / "configfs/target/dbroot").write_text(f"{machine.root}/file\n")
    with pytest.raises(HostError, match="for persistent reservations: Not a directory"):
        probe.check_reservations()


def test_looking_for_a_module_loads_none(machine: Machine) -> None:
    assert probe.look_for_module("tcm_loop") == "can be loaded"
    assert machine.ran == [["/sbin/modprobe", "--dry-run", "tcm_loop"]]
    machine.load("tcm_loop")
    assert probe.look_for_module("tcm_loop") == "loaded"
    assert len(machine.ran) == 1


def test_looking_for_a_module_that_is_not_there_says_where_to_get_it(machine: Machine) -> None:
    machine.distribution("ID=debian\n")
    machine.refuse("modprobe: FATAL: Module tcm_loop not found in directory /lib/modules/6.1")
    with pytest.raises(HostError, match="has no module tcm_loop; install linux-image-amd64"):
        probe.look_for_module("tcm_loop")
