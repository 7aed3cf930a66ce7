import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from vagrant.runner import accel
from vagrant.runner.errors import VmError


@dataclass
class Probe:
    """Stands for the boot of a guest with KVM, and counts how often it is done."""

    boots: bool
    times: int = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.boots


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The root folder of a host where /dev/kvm can be opened."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    set_boot_id(tmp_path, "first")
    return tmp_path


def set_boot_id(host: Path, boot_id: str) -> None:
    path = host / "proc/sys/kernel/random/boot_id"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{boot_id}\n")


def choose(host: Path, probe: Probe, wanted: str = "auto", release: str = "6.1.0") -> str:
    return accel.choose(wanted, release, probe, host / "cache/kvm", host)


@pytest.mark.parametrize(("boots", "expected"), [(True, "kvm"), (False, "tcg")])
def test_kvm_counts_only_when_a_guest_boots(host: Path, boots: bool, expected: str) -> None:
    assert choose(host, Probe(boots)) == expected


@pytest.mark.parametrize("boots", [True, False])
def test_the_answer_is_kept_until_the_host_is_booted_again(host: Path, boots: bool) -> None:
    probe = Probe(boots)
    first = choose(host, probe)
    assert (choose(host, probe), probe.times) == (first, 1)
    set_boot_id(host, "second")
    assert (choose(host, probe), probe.times) == (first, 2)


def test_the_answer_is_kept_for_one_kernel(host: Path) -> None:
    probe = Probe(boots=True)
    choose(host, probe, release="6.1.0")
    choose(host, probe, release="6.12.9")
    assert probe.times == 2


def test_a_spoilt_cache_is_no_answer(host: Path) -> None:
    (host / "cache").mkdir()
    (host / "cache/kvm").write_text("nonsense")
    probe = Probe(boots=True)
    assert (choose(host, probe), probe.times) == ("kvm", 1)


def test_kvm_pvm_is_refused_with_no_probe(host: Path) -> None:
    (host / "sys/module/kvm_pvm").mkdir(parents=True)
    probe = Probe(boots=True)
    assert (choose(host, probe), probe.times) == ("tcg", 0)


def test_no_kvm_device_needs_no_probe(host: Path) -> None:
    (host / "dev/kvm").unlink()
    probe = Probe(boots=True)
    assert (choose(host, probe), probe.times) == ("tcg", 0)


def test_tcg_is_taken_when_asked_for(host: Path) -> None:
    probe = Probe(boots=True)
    assert (choose(host, probe, "tcg"), probe.times) == ("tcg", 0)


def test_kvm_when_asked_for_must_work(host: Path) -> None:
    with pytest.raises(VmError, match="did not boot"):
        choose(host, Probe(boots=False), "kvm")


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{os.sep}elsewhere")
    assert accel.cache_folder() == Path("/elsewhere/vscsihba")
