"""status: the answer of the service; without a service, of the kernel and the engines."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.daemon.fake import FakeService
from vscsihba import configfs
from vscsihba.cli.main import main
from vscsihba.cli.status_text import status_lines
from vscsihba.config.load import read
from vscsihba.control.server import ControlServer
from vscsihba.daemon.calls import Status
from vscsihba.daemon.kernel_status import kernel_status
from vscsihba.errors import HostError

Capture = pytest.CaptureFixture[str]

DOCUMENT = {
    "version": 1,
    "backstores": {
        "d1": {"handler": "memory", "size": "1MiB"},
        "d2": {"handler": "file", "path": "/srv/d2.img", "size": "64MiB"},
    },
    "hbas": [
        {
            "id": 0,
            "luns": [{"lun": 0, "backstore": "d1"}, {"lun": 1, "backstore": "d2", "read_only": True}],
        },
        {"id": 7},
    ],
}


def shown(status: Status) -> str:
    """Return the text with every column."""
    return "".join(f"{line.plain}\n" for line in status_lines(status, 0.0, None))


def test_the_service_is_shown_as_a_table(service: FakeService, capsys: Capture) -> None:
    service.running = read(DOCUMENT, Path("/"))
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "service: running for 2 h 3 min, pid 800"
    assert lines[2].split() == [
        "HBA",
        "LUN",
        "BACKSTORE",
        "DEVICE",
        "SIZE",
        "STATE",
        "ENGINE",
        "IOPS",
        "STACK",
        "BY-ID",
    ]
    assert re.split(" {2,}", lines[3]) == [
        *("0", "0", "d1", "/dev/sda", "1.0 MiB", "running", "900", "120", "memory"),
        "scsi-30000000000000000",
    ]
    assert re.split(" {2,}", lines[4])[5:9] == ["running, read-only", "900", "120", "file /srv/d2.img"]
    assert lines[5].split() == ["7", "-"]
    assert lines[-2] == "of other programs, never touched:"
    assert not any(line.endswith(" ") for line in lines)


def test_json_is_the_services_answer(service: FakeService, capsys: Capture) -> None:
    service.running = read(DOCUMENT, Path("/"))
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [lun["backstore"] for hba in found["hbas"] for lun in hba["luns"]] == ["d1", "d2"]
    assert found["daemon"]["pid"] == 800


def test_nothing_at_all_is_said_so(no_service: None, kernel: FakeConfigfs, capsys: Capture) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "service: not running\nno virtual HBA\n"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    fake = FakeConfigfs(tmp_path, monkeypatch)
    monkeypatch.setattr(configfs, "links_of", lambda disk: (Path("/dev/disk/by-id/scsi-1"), Path("/x")))
    for lun in range(2):
        name = configfs.backstore_name(3, lun)
        configfs.create_backstore(configfs.BackstoreSpec(name, size=1 << 20, serial=f"s{lun}"))
    return fake


@pytest.fixture
def hba(kernel: FakeConfigfs) -> FakeConfigfs:
    """HBA 3 with two LUNs."""
    configfs.create_hba(3)
    for lun, letter in enumerate("ab"):
        configfs.link_lun(3, lun, configfs.backstore_name(3, lun))
        block = kernel.sysfs / "class/block" / f"sd{letter}"
        block.mkdir(parents=True)
        (block / "size").write_text("2048\n")
        (block / "ro").write_text(f"{lun}\n")
    return kernel


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """An engine of HBA 3, which says what the test puts in here."""
    said: dict[str, Any] = {}

    def status() -> Mapping[str, Any]:
        if "error" in said:
            raise HostError(said["error"])
        return said

    folder = tmp_path / "run/hba3"
    folder.mkdir(parents=True)
    with ControlServer(folder / f"engine-{os.getpid()}.control", {"status": status}):
        yield said


def lun_said(lun: int, *, owner: bool, failure: str | None = None) -> dict[str, Any]:
    return {"lun": lun, "owner": owner, "failure": failure, "document": {"handler": "memory", "size": "1MiB"}}


def test_without_a_service_the_engines_are_asked(
    hba: FakeConfigfs, engine: dict[str, Any], tmp_path: Path
) -> None:
    engine |= {"since": 1000.0, "luns": [lun_said(0, owner=True), lun_said(1, owner=False)]}
    engine["pid"] = os.getpid()
    status = kernel_status(tmp_path / "run")
    assert status["daemon"] is None
    assert status["hbas"][0]["engines"] == [{"pid": os.getpid(), "state": "running", "since": 1000.0}]
    first, second = status["hbas"][0]["luns"]
    assert first == {
        "lun": 0,
        "backstore": "vscsihba3-lun0",
        "local": True,
        "device": f"{hba.dev}/sda",
        "by_id": "/dev/disk/by-id/scsi-1",
        "size": 1 << 20,
        "stack": "memory 1MiB",
        "engine": os.getpid(),
        "iops": None,
        "state": "running",
        "read_only": False,
        "reservation": None,
    }
    assert (second["engine"], second["state"], second["read_only"]) == (None, "not served", True)


def test_a_lun_that_fails_says_why(hba: FakeConfigfs, engine: dict[str, Any], tmp_path: Path) -> None:
    engine |= {"since": 1000.0, "pid": 1, "luns": [lun_said(0, owner=False, failure="/a: no such file")]}
    status = kernel_status(tmp_path / "run")
    assert status["hbas"][0]["luns"][0]["state"] == "failing: /a: no such file"


def test_an_engine_that_does_not_answer_is_shown(
    hba: FakeConfigfs, engine: dict[str, Any], tmp_path: Path
) -> None:
    engine["error"] = "busy"
    status = kernel_status(tmp_path / "run")
    assert status["hbas"][0]["engines"][0]["state"] == "not answering"


def test_the_socket_of_a_killed_engine_is_passed_by(hba: FakeConfigfs, tmp_path: Path) -> None:
    folder = tmp_path / "run/hba3"
    folder.mkdir(parents=True)
    (folder / "engine-4711.control").touch()
    assert kernel_status(tmp_path / "run")["hbas"][0]["engines"] == []


def test_a_disk_that_another_program_has_deleted_is_shown_with_the_cure(
    hba: FakeConfigfs, engine: dict[str, Any], tmp_path: Path
) -> None:
    engine |= {"since": 1000.0, "pid": 1, "luns": [lun_said(0, owner=True), lun_said(1, owner=True)]}
    hba.delete_disk(3, 1)
    status = kernel_status(tmp_path / "run")
    assert [lun["state"] for lun in status["hbas"][0]["luns"]] == ["running", "no SCSI device"]
    out = shown(status)
    assert "\nLUN 1 of HBA 3: Linux has no disk for it. If this lasts, another program has deleted" in out
    assert '"systemctl restart vscsihba"' in out


def test_an_interrupted_creation_and_foreign_objects_are_shown(hba: FakeConfigfs, tmp_path: Path) -> None:
    (hba.loopback / configfs.wwn_of(3) / "tpgt_1/lun/lun_9").mkdir()
    hba.foreign_backstore("theirs", 5, "file/x")
    out = shown(kernel_status(tmp_path / "run"))
    assert re.search(r"^3 +9 +- +- +- +incomplete +- +- +- +-$", out, re.MULTILINE)
    assert "\nLUN 9 of HBA 3: creation was interrupted. " in out
    assert "  backstore  user_5/theirs  file/x" in out


def test_clear_without_a_service_removes_what_was_left(
    hba: FakeConfigfs, no_service: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(configfs, "users_of", lambda disk: [])
    assert main(["clear", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"][0] == "HBA 3 with 2 LUNs"
    assert configfs.observe().hbas == {}


def test_clear_of_a_running_engine_of_the_service_needs_the_service(
    hba: FakeConfigfs, no_service: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(configfs, "users_of", lambda disk: [])
    for holder, code in (((77, "vscsihba"), 1), ((77, "vscsitarget"), 0)):
        monkeypatch.setattr("vscsihba.cli.commands.clear.holder_of", lambda _id, found=holder: found)
        before = configfs.observe().hbas.keys()
        assert main(["clear", "3"]) == code
        if code:
            assert capsys.readouterr().err.startswith(
                "vscsihba: HBA 3 is being served by engine 77 of the service; start the service first: "
            )
            assert configfs.observe().hbas.keys() == before


def test_problems_of_no_single_lun_are_shown_first(service: FakeService) -> None:
    status: Any = service.status()
    problem = "not restored: /etc/vscsihba/config.json: line 1, column 2: this is not JSON"
    status["problems"] = [problem]
    assert shown(status).splitlines()[1] == problem
    del status["problems"]
    assert "not restored" not in shown(status), "a service of an older version tells none"
