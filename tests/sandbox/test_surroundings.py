"""The surroundings of a command in the sandbox: its variables, its folders, its disks."""

import json
import sys
from pathlib import Path

import pytest

from vscsihba.errors import UsageError
from vscsihba.sandbox import surroundings


def test_variables_of_the_session_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/sbin")
    found = surroundings.environment(scratch=True)
    assert (found.get("DISPLAY"), found["MINE"], found["USER"]) == (None, "1", "root")
    assert found["PATH"] == f"/usr/bin:/sbin:/usr/local/sbin:/usr/sbin:{Path(sys.executable).parent}"
    assert found["VSCSIHBA_SCRATCH"] == "/run/scratch"
    assert "VSCSIHBA_SCRATCH" not in surroundings.environment(scratch=False)


@pytest.mark.parametrize(
    ("name", "message"), [("/none", "no such folder"), ("/proc", "a /proc of its own"), ("/", "the root")]
)
def test_folders_that_cannot_be_written_through(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        surroundings.writable_folder(name)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert surroundings.writable_folder(str(tmp_path / "link")) == (tmp_path / "real").resolve()


def test_without_disks_no_service_is_started() -> None:
    assert surroundings.disk_service(None, []) == ([], {})


def test_disks_are_added_to_those_of_a_document(tmp_path: Path) -> None:
    backstore = {"handler": "memory", "size": "1MiB"}
    document = {
        "version": 1,
        "backstores": {"disk0": backstore},
        "hbas": [{"id": 0, "luns": [{"lun": 0, "backstore": "disk0"}]}],
    }
    file = tmp_path / "disks.json"
    file.write_text(json.dumps(document))
    steps, files = surroundings.disk_service(str(file), ["memory:2MiB", "readonly|memory:3MiB"])
    assert [step.name for step in steps] == ["vscsihba daemon", "vscsihba apply"]
    told = json.loads(files["disks.json"])
    assert told["backstores"]["disk1"] == {"handler": "memory", "size": "2MiB"}
    assert told["hbas"][1] == {
        "id": 1,
        "luns": [{"lun": 0, "backstore": "disk1"}, {"lun": 1, "backstore": "disk2"}],
    }


@pytest.mark.parametrize("stack", ["memory:size=", "readonly:x=1|memory:1MiB", "{"])
def test_a_stack_that_cannot_be_meant(stack: str) -> None:
    with pytest.raises(UsageError):
        surroundings.disk_service(None, [stack])
