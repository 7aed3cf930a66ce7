"""The tree: objects in it, of the service and of other programs."""

import json
import re
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService
from tests.shell.conftest import Run
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import HostError, UsageError
from vscsihba.shell.context import ShellContext
from vscsihba.shell.session import Session


def nodes(tree: str) -> dict[str, str]:
    """Return the text beside each node of a printed tree."""
    found = re.findall(r"o- (\S+) \.*\s?\[(.*)\]$", tree, re.MULTILINE)
    assert found
    return dict(found)


def test_an_empty_machine(run: Run, service: FakeService) -> None:
    service.others = []
    assert nodes(run("ls")) == {
        "/": "0 disks",
        "backstores": "0 backstores",
        "hbas": "0 HBAs",
        "exports": "0 exports",
    }


def test_sizes_and_states_are_shown(run: Run, disk: None) -> None:
    found = nodes(run("ls /"))
    assert found == {
        "/": "1 disk",
        "backstores": "2 backstores",
        "memory": "2 backstores",
        "d1": "1.0 MiB, memory 1MiB, hba0/lun0",
        "d2": "memory 1MiB, no LUN",
        "hbas": "1 HBA",
        "hba0": "1 LUN, 1 engine",
        "lun0": "/dev/sda, 1.0 MiB, d1, running",
        "exports": "0 exports",
        "others": "1 object of other programs, never touched",
        "backstore:fileio_0:theirs": "fileio, 1 MiB, behind iqn.2003-01.org:t1 LUN 0",
    }


def test_empty_folders_are_shown_where_one_looks_for_them(run: Run, disk: None) -> None:
    found = nodes(run("/backstores ls"))
    assert {"memory", "d1", "encrypt", "file"} <= set(found)
    assert found["null"] == "A disk that drops all writes and reads as zeroes"
    assert "encrypt" not in nodes(run("ls"))


def test_the_depth_can_be_limited(run: Run, disk: None) -> None:
    assert set(nodes(run("ls / 1"))) == {"/", "backstores", "hbas", "exports", "others"}


def test_what_others_did_to_our_objects_is_shown_as_it_is(disk: None, run: Run, session: Session) -> None:
    session.context.look()
    view = session.context.view
    lun = view.status["hbas"][0]["luns"][0]
    lun["state"], lun["device"], lun["size"] = "gone", None, None
    extra = {**lun, "lun": 9, "backstore": None, "state": "not served"}
    view.status["hbas"][0]["luns"].append(extra)  # type: ignore[arg-type]
    session.context.look = lambda: None  # type: ignore[method-assign]
    found = nodes(run("ls"))
    assert found["/"] == "2 disks, 2 not running"
    assert found["lun0"] == "no disk, -, d1, gone"
    assert found["lun9"] == "no disk, -, -, not served"
    with pytest.raises(UsageError, match="/hbas/hba0/lun9 is not managed by the service"):
        run("/hbas/hba0/lun9 delete")


def test_what_is_wanted_and_not_there_is_shown(disk: None, run: Run, session: Session) -> None:
    session.context.look()
    session.context.view.status["hbas"].clear()
    session.context.look = lambda: None  # type: ignore[method-assign]
    found = nodes(run("ls"))
    assert (found["hba0"], found["lun0"]) == ("1 LUN, missing", "d1, missing")
    assert "missing" in run("/hbas/hba0/lun0 info")


def test_an_hba_of_somebody_else_is_not_touched(run: Run, session: Session) -> None:
    engine = {"pid": 1, "state": "running", "since": 0.0}
    session.context.view.status["hbas"].append({"id": 5, "engines": [engine], "luns": []})  # type: ignore[list-item]
    session.context.look = lambda: None  # type: ignore[method-assign]
    assert nodes(run("ls"))["hba5"] == "0 LUNs, 1 engine"
    for line in (
        "/hbas/hba5 create d1",
        "/hbas delete 5",
        "/hbas/hba5 set attribute engines=2",
    ):
        with pytest.raises(UsageError, match=r"hba5 is not managed by the service|there is no backstore"):
            run(line)


def test_others_can_only_be_looked_at(run: Run) -> None:
    assert "fileio, 1 MiB" in run("/others/backstore:fileio_0:theirs info")
    with pytest.raises(UsageError, match="has no command 'delete'"):
        run("/others/backstore:fileio_0:theirs delete")


def test_json_is_the_whole_tree(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(ShellContext(Daemon(tmp_path / "control.sock"), as_json=True))
    session.run(["/hbas", "create"])
    assert json.loads(capsys.readouterr().out)["changes"][0]["kind"] == "add_hba"
    session.run(["ls"])
    tree = json.loads(capsys.readouterr().out)
    assert [child["path"] for child in tree["children"]] == ["/backstores", "/exports", "/hbas", "/others"]


def test_a_handler_that_is_broken_is_shown_as_such(
    run: Run, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(name: str) -> type:
        raise HostError(f"handler {name} cannot be imported: no")

    monkeypatch.setattr(session.context.registry, "get", get)
    assert nodes(run("ls /backstores"))["cow"] == "handler cow cannot be imported: no"
