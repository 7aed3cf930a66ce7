"""The systemd unit: complete, with the right program, and installed in the given folder."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from vscsihba.daemon import service_unit
from vscsihba.errors import HostError


def test_the_unit_names_the_program_and_protects_what_it_can() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(service_unit.text(Path("/opt/x/bin/vscsihba")))
    service = unit["Service"]
    assert service["ExecStart"] == "/opt/x/bin/vscsihba daemon"
    assert service["Type"] == "notify"
    assert service["KillMode"] == "process", "engines go on without the service"
    assert service["NoNewPrivileges"] == "yes"
    assert unit["Unit"]["Before"] == "remote-fs-pre.target", "file systems are unmounted before it stops"
    assert "@" not in service_unit.text(Path("/opt/x/bin/vscsihba"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_every_word_of_it(tmp_path: Path) -> None:
    unit = service_unit.install(directory=tmp_path, program=Path("/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    if "Failed to" in done.stderr and "Unknown" not in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.splitlines()[0]}")
    assert str(unit) not in done.stderr


def test_installed_and_removed(tmp_path: Path) -> None:
    unit = service_unit.install(directory=tmp_path, program=Path("/usr/bin/vscsihba"))
    assert unit == tmp_path / "vscsihba.service"
    assert unit.read_text() == service_unit.text(Path("/usr/bin/vscsihba"))
    assert unit.stat().st_mode & 0o777 == 0o644


def test_removing_a_missing_unit_does_nothing(tmp_path: Path) -> None:
    assert service_unit.remove(directory=tmp_path) is False


def test_a_directory_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file or directory; be root"):
        service_unit.install(directory=tmp_path / "none", program=Path("/usr/bin/vscsihba"))


def test_starting_needs_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "_RUNS", tmp_path / "none")
    with pytest.raises(HostError, match="this machine does not run systemd; have its init system run"):
        service_unit.install(directory=tmp_path, program=Path("/usr/bin/vscsihba"), start=True)
    assert list(tmp_path.iterdir()) == []
