"""daemon, install-service, schema: what they do with their words."""

import json
import logging
from pathlib import Path

import pytest

from vscsihba.cli.commands import daemon
from vscsihba.cli.main import main
from vscsihba.daemon import service_unit
from vscsihba.errors import InUseError

Capture = pytest.CaptureFixture[str]


def test_schema_is_a_json_schema_of_the_document(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["$schema"].startswith("http://json-schema.org/")
    assert {"backstores", "hbas", "version"} <= set(found["properties"])


def test_daemon_is_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    monkeypatch.setattr(daemon, "serve", lambda: served.append(True))
    assert main(["daemon"]) == 0
    assert served


def test_daemon_logs_json_where_asked(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def serve() -> None:
        logging.getLogger("vscsihba.daemon").warning("HBA %d has died", 3)

    monkeypatch.setattr(daemon, "serve", serve)
    assert main(["daemon", "--json"]) == 0
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["message"]) == ("WARNING", "HBA 3 has died")
    assert said["time"] > 1e9


def test_a_second_daemon_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def serve() -> None:
        raise InUseError("the service is running already", cure="stop it first")

    monkeypatch.setattr(daemon, "serve", serve)
    assert main(["daemon"]) == 1
    assert capsys.readouterr().err == "vscsihba: the service is running already; stop it first\n"


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the unit goes on this machine, which has no systemd."""
    for name in ("install", "remove"):
        defaults = dict(getattr(service_unit, name).__kwdefaults__)
        monkeypatch.setattr(
            getattr(service_unit, name), "__kwdefaults__", {**defaults, "directory": tmp_path}
        )
    monkeypatch.setattr(service_unit, "_RUNS", tmp_path / "no-systemd")
    return tmp_path / service_unit.NAME


def test_the_unit_is_installed_and_removed(unit: Path, capsys: Capture) -> None:
    assert main(["install-service"]) == 0
    assert "vscsihba daemon" in unit.read_text()
    assert capsys.readouterr().out.startswith(f"installed {unit}; ")
    assert main(["install-service", "--remove"]) == 0
    assert not unit.exists()
    capsys.readouterr()
    assert main(["install-service", "--remove", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": False}


def test_without_systemd_it_cannot_be_started(unit: Path, capsys: Capture) -> None:
    assert main(["install-service", "--start"]) == 1
    assert "this machine does not run systemd" in capsys.readouterr().err
    assert not unit.exists()
    assert main(["install-service", "--start", "--remove"]) == 2
