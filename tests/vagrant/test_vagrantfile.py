"""The Vagrantfile under `vagrant validate`, for each provider; an unknown name fails."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
Validate = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(
    shutil.which("vagrant") is None, reason="needs the program vagrant: ./dev setup --vagrant"
)


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    """Run `vagrant validate` in a copy of vagrant/ with a text in the Vagrantfile replaced."""

    def run(
        provider: str, replaced: str = "", by: str = "", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        copy = tmp_path / "vagrant"
        shutil.copytree(VAGRANT, copy, ignore=shutil.ignore_patterns(".vagrant"))
        (copy / "Vagrantfile").write_text((VAGRANT / "Vagrantfile").read_text().replace(replaced, by))
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "VBoxManage").write_text("#!/bin/sh\necho 7.0.10r158379\n")
        (programs / "VBoxManage").chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_DEFAULT_PROVIDER": provider,
            "VM_ACCEL": "tcg",
            **variables,
        }
        if provider == "qemu":
            environment["VM_VAGRANTFILE"] = str(copy / "Vagrantfile")
            wrapper = copy / "Vagrantfile.qemu"
            shutil.copy(Path(__file__).parent / "qemu_provider.rb", wrapper)
            environment["VAGRANT_VAGRANTFILE"] = wrapper.name
        return subprocess.run(
            ["vagrant", "validate"], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
@pytest.mark.parametrize("box", ["", "debian/bookworm64"])
def test_libvirt(validate: Validate, box: str, accel: str) -> None:
    variables = {"VM_BOX": box} if box else {}
    done = validate("libvirt", VM_ACCEL=accel, VM_CONSOLE="/dev/null", **variables)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("provider", ["virtualbox", "qemu"])
def test_other_providers(validate: Validate, provider: str) -> None:
    done = validate(provider, VM_BOX="debian/bookworm64")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox", "qemu"])
def test_a_setting_that_does_not_exist(validate: Validate, provider: str) -> None:
    done = validate(provider, f"{provider}.memory", f"{provider}.memmory", VM_BOX="debian/bookworm64")
    assert done.returncode != 0
    assert "memmory" in done.stdout + done.stderr


def test_a_kernel_more_is_a_machine_more(validate: Validate) -> None:
    told = "abort kernels.join(' ')\nVagrant.configure"
    done = validate("libvirt", "Vagrant.configure", told)
    assert "6.1 6.12" in done.stderr
