"""Exports in the service's verbs: all of a change or none, sessions that are in the way, restarts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.test_service import World, document, kinds, said
from vscsihba.configfs import Session
from vscsihba.daemon.run import take_all_down
from vscsihba.errors import HostError, InUseError

NAME = "iqn.2026-11.example:store"
HOST = "iqn.2026-11.example:host1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.service.resume()
    yield made
    made.supervisor.close()


def exported(*names: str, shown: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return a document with disks, and an export of them."""
    luns = [
        {"lun": number, "backstore": name} for number, name in enumerate(names if shown is None else shown)
    ]
    whole = {
        "transport": "iscsi",
        "name": NAME,
        "portals": ["127.0.0.1:3260"],
        "initiators": [{"name": HOST}],
        "luns": luns,
    }
    return {**document(*names), "exports": [whole]}


def test_an_export_is_applied_shown_and_removed(world: World) -> None:
    assert kinds(world.service.apply(exported("a", "b"), said))[-1] == "add_export"
    assert world.targets.found[NAME].luns == {0: "vscsihba0-lun0", 1: "vscsihba0-lun1"}
    assert kinds(world.service.plan(exported("a", "b"))) == []
    assert world.service.show() == exported("a", "b")
    status: Any = world.service.status()
    assert status["exports"][0]["state"] == "running"
    world.service.clear(said)
    assert world.targets.found == {}
    assert world.linked == {}


def test_an_export_that_fails_takes_the_disks_of_its_change_back(world: World) -> None:
    world.targets.refuse = HostError("no memory")
    with pytest.raises(HostError, match="no memory"):
        world.service.apply(exported("a"), said)
    assert world.linked == {}
    world.targets.refuse = None
    assert world.service.show() == {"version": 1, "backstores": {}, "hbas": []}


def test_a_session_keeps_its_lun_unless_forced(world: World) -> None:
    world.service.apply(exported("a", "b"), said)
    world.targets.logged_in = [Session(HOST, ("192.0.2.4",))]
    smaller = exported("a", "b", shown=("a",))
    with pytest.raises(InUseError, match=rf"- LUN 1: {HOST} is logged in from 192\.0\.2\.4; log out"):
        world.service.apply(smaller, said)
    with pytest.raises(InUseError, match="is logged in"):
        world.service.clear(said)
    assert world.targets.found[NAME].luns.keys() == {0, 1}
    world.service.apply(smaller, said, force=True)
    assert world.targets.found[NAME].luns.keys() == {0}


def test_clearing_an_hba_clears_the_luns_that_show_its_disks(world: World) -> None:
    world.service.apply(exported("a"), said)
    world.service.apply({**document("b", hba=7)}, said)
    more = {**exported("a"), "backstores": {**document("a", "b")["backstores"]}}
    more["hbas"] = [*document("a")["hbas"], *document("b", hba=7)["hbas"]]
    more["exports"][0]["luns"].append({"lun": 9, "backstore": "b"})
    world.service.apply(more, said)
    world.service.clear(said, 7)
    assert world.targets.found[NAME].luns == {0: "vscsihba0-lun0"}
    world.service.clear(said, 0)
    assert world.targets.found == {}


def test_a_restarted_service_makes_its_exports_again(world: World) -> None:
    world.service.apply(exported("a"), said)
    world.targets.found.clear()
    world.supervisor.close()
    world.born().resume()
    assert world.targets.found.keys() == {NAME}


def test_an_export_that_fails_at_a_restart_is_retried(world: World) -> None:
    world.service.apply(exported("a"), said)
    world.targets.found.clear()
    world.supervisor.close()
    world.targets.refuse = HostError("no memory")
    world.born().resume()
    status: Any = world.service.status()
    assert status["exports"][0]["state"] == "failing: no memory"
    world.targets.refuse = None
    world.service.retry()
    assert world.targets.found.keys() == {NAME}


def test_a_machine_that_goes_down_ends_exports_first(world: World, tmp_path: Path) -> None:
    world.service.apply(exported("a"), said)
    world.service.save()
    world.targets.logged_in = [Session(HOST)]
    take_all_down(world.service, tmp_path)
    assert world.targets.found == {}
    assert world.linked == {}


def test_a_saved_export_is_restored_when_its_disk_can_be_read(world: World, tmp_path: Path) -> None:
    world.service.apply(exported("a", "b"), said)
    saved = Path(str(world.service.save()["path"]))  # type: ignore[index]
    text = saved.read_text()
    world.supervisor.close()
    (tmp_path / "run/running.json").unlink()
    world.hbas.clear()
    world.targets.found.clear()
    saved.write_text(text.replace('"b": {"handler": "memory"', '"b": {"handler": "memorie"'))
    world.born().resume()
    assert world.targets.found[NAME].luns == {0: "vscsihba0-lun0"}
    status: Any = world.service.status()
    assert [each for each in status["problems"] if "memorie" in each]
    saved.write_text(text)
    world.service.retry()
    assert world.targets.found[NAME].luns == {0: "vscsihba0-lun0", 1: "vscsihba0-lun1"}
    assert world.service.awaited.unread == ()
