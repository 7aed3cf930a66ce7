import shutil
from pathlib import Path

import pytest

from vagrant.runner import firmware_probe

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="needs QEMU: ./dev setup --vm"
)


@needs_qemu
def test_a_guest_that_boots_is_seen() -> None:
    assert firmware_probe.boots("tcg", limit=100)


@needs_qemu
def test_a_sector_that_hangs_is_no_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa"
    monkeypatch.setattr(firmware_probe, "SECTOR", hang)
    assert not firmware_probe.boots("tcg", limit=3)


def test_no_qemu_is_no_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not firmware_probe.boots("kvm")


def test_a_machine_without_kvm_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware_probe, "boots", lambda: pytest.fail("probed"))
    assert firmware_probe.main(tmp_path / "cache", tmp_path) == "tcg"
