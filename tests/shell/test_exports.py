"""Exports in the tree: created, changed and deleted node by node, and kept by changes of others."""

from typing import Any

import pytest

from tests.daemon.fake import FakeService
from tests.shell.conftest import Run
from vscsihba.config.dump import builtins
from vscsihba.errors import UsageError

NAME = "iqn.2026-11.example:store"
HOST = "iqn.2026-11.example:host1"
AT = f"/exports/{NAME}"


@pytest.fixture
def export(run: Run, disk: None) -> None:
    """An export that shows the backstore d1."""
    run(f"/exports create {NAME} 192.0.2.7:3260")
    run(f"{AT}/luns create d1")


def whole(service: FakeService) -> Any:
    return builtins(service.running).get("exports")


def test_an_export_is_made_node_by_node(run: Run, service: FakeService, export: None) -> None:
    run(f"{AT}/portals create [2001:db8::7]:3260")
    assert f"+ initiator {HOST}" in run(f"{AT}/initiators create {HOST} luns=0 user=u password_file=/u.chap")
    run(f"{AT} set attribute cmdsn_depth=32 data_digest=None")
    assert whole(service) == [
        {
            "transport": "iscsi",
            "name": NAME,
            "portals": ["192.0.2.7:3260", "[2001:db8::7]:3260"],
            "initiators": [{"name": HOST, "user": "u", "password_file": "/u.chap", "luns": [0]}],
            "luns": [{"lun": 0, "backstore": "d1"}],
            "cmdsn_depth": 32,
            "data_digest": "None",
        }
    ]
    assert run(f"{AT} get attribute cmdsn_depth open") == "cmdsn_depth=32\nopen=false\n"
    tree = run("ls /exports")
    assert "d1, read-write" in tree
    assert "LUN 0, CHAP" in tree


def test_what_an_export_has_is_deleted_again(run: Run, service: FakeService, export: None) -> None:
    run(f"{AT}/initiators create {HOST}")
    run(f"{AT}/portals create 192.0.2.8:3260")
    for entry in ("luns/lun0", f"initiators/{HOST}", "portals/192.0.2.7:3260"):
        run(f"{AT}/{entry} delete")
    assert whole(service) == [{"transport": "iscsi", "name": NAME, "portals": ["192.0.2.8:3260"]}]
    with pytest.raises(UsageError, match="the export has no portal"):
        run(f"{AT}/portals/192.0.2.8:3260 delete")
    run(f"/exports delete {NAME}")
    assert whole(service) is None
    assert service.running.backstores.keys() == {"d1", "d2"}


def test_sessions_are_shown(run: Run, service: FakeService, export: None) -> None:
    service.sessions = [{"initiator": HOST, "addresses": []}]
    assert "iscsi, running, 1 session" in run("ls /exports")
    assert f"logged in  {HOST}" in run(f"{AT} info")


def test_a_name_is_taken_once(run: Run, export: None) -> None:
    with pytest.raises(UsageError, match=f"the export {NAME} already exists"):
        run(f"/exports create {NAME} 192.0.2.7:3260")
    with pytest.raises(UsageError, match=r"there is no backstore 'd3'; known are: d1, d2"):
        run(f"{AT}/luns create d3")


def test_changes_of_others_keep_an_export(run: Run, service: FakeService, export: None) -> None:
    before = whole(service)
    run("/backstores/memory delete d2")
    run("/hbas create 7")
    run("/hbas delete 7")
    assert whole(service) == before
    with pytest.raises(UsageError, match=f"LUN 0 of the export {NAME} shows it, and stays"):
        run("/hbas/hba0/lun0 delete")
    with pytest.raises(UsageError, match="no HBA has the backstore d1"):
        run("/hbas delete 0")


def test_a_path_gets_another_state(run: Run, service: FakeService, session: object, export: None) -> None:
    run(f"{AT}/luns/lun0 set attribute state=standby read_only=true")
    (lun,) = whole(service)[0]["luns"]
    assert lun == {"lun": 0, "backstore": "d1", "read_only": True, "state": "standby"}
    assert "d1, read-only, standby" in run(f"ls {AT}")
    assert run(f"{AT}/luns/lun0 get attribute state") == "state=standby\n"
    node = session._current_node.get_node(f"{AT}/luns/lun0")  # type: ignore[attr-defined]
    assert node.suggest("state", "s") == ["standby "]
    run(f"{AT}/luns/lun0 set attribute state= read_only=")
    assert whole(service)[0]["luns"] == [{"lun": 0, "backstore": "d1"}]


def test_words_are_completed(run: Run, session: object, export: None) -> None:
    node = session._current_node.get_node(f"{AT}/luns")  # type: ignore[attr-defined]
    assert node.ui_complete_create({}, "d", "backstore") == ["d1", "d2"]
    assert node.ui_complete_create({}, "t", "read_only") == ["true "]
    initiators = session._current_node.get_node(f"{AT}/initiators")  # type: ignore[attr-defined]
    assert initiators.ui_complete_create({}, "m", "x") == ["mutual_password_file=", "mutual_user="]
    exports = session._current_node.get_node("/exports")  # type: ignore[attr-defined]
    assert exports.ui_complete_delete({}, "iqn", "name") == [f"{NAME} "]
