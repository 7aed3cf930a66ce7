"""The service's verbs, with fake engines."""

import errno
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.daemon.fake_engines import Hba
from tests.daemon.fake_targets import Targets
from tests.polling import wait_until
from vscsihba.config.load import load
from vscsihba.control import ControlServer, call
from vscsihba.control.peer import Peer
from vscsihba.daemon import engine_pool, known_devices
from vscsihba.daemon import state as state_module
from vscsihba.daemon.exports import Exports
from vscsihba.daemon.known_devices import check_devices
from vscsihba.daemon.run import take_all_down
from vscsihba.daemon.service import Service
from vscsihba.daemon.state import State
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.engine import owner
from vscsihba.engine.owning.locks import lock_hba
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError

MiB = 1 << 20


class World:
    """HBAs by id, as engines see them, and a service that starts engines there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hbas: dict[int, Hba] = {}
        self.used: dict[tuple[int, int], str] = {}
        self.targets = Targets()
        self.service = self.born()

    def born(self) -> Service:
        """Start another service."""
        state = State(self.folder / "run", self.folder / "etc/config.json", self.folder / "lib/devices.json")
        supervisor = Supervisor(
            lambda hba_id: self.hbas.setdefault(hba_id, Hba()).start(hba_id),
            lambda hba_id: self.hbas[hba_id].living if hba_id in self.hbas else [],
            self.folder / "run",
            lambda request: check_devices(state.devices_to_check(), request.document),
        )
        supervisor.users = (  # type: ignore[method-assign]
            lambda hba_id, lun: [self.used[hba_id, lun]] if (hba_id, lun) in self.used else []
        )
        self.supervisor = supervisor
        self.service = Service(supervisor, state, Exports({"iscsi": self.targets}))
        return self.service

    @property
    def linked(self) -> dict[int, set[int]]:
        return {hba_id: hba.linked for hba_id, hba in self.hbas.items() if hba.living}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.service.resume()
    yield made
    made.supervisor.close()


def document(*luns: str, hba: int = 0, **options: Any) -> dict[str, Any]:
    stacks: dict[str, dict[str, Any]] = {name: {"handler": "memory", "size": "1MiB"} for name in luns}
    shown = [{"lun": number, "backstore": name} for number, name in enumerate(luns)]
    return {"version": 1, "backstores": stacks, "hbas": [{"id": hba, "luns": shown, **options}]}


def said(_report: object) -> None:
    """Ignore progress."""


def kinds(told: Any) -> list[str]:
    return [step["kind"] for step in told["changes"]]


def test_planning_changes_nothing_and_applying_does(world: World) -> None:
    wanted = document("a", "b", engines=2)
    planned = kinds(world.service.plan(wanted))
    assert planned == ["add_backstore", "add_backstore", "add_hba", "add_lun", "add_lun"]
    assert world.hbas == {}
    heard: list[Any] = []
    assert kinds(world.service.apply(wanted, heard.append)) == planned
    assert [report["step"] for report in heard] == [1, 2, 3, 4, 5]
    assert world.linked == {0: {0, 1}}
    assert len(world.hbas[0].living) == 2
    assert kinds(world.service.plan(wanted)) == []
    assert kinds(world.service.plan(world.service.show())) == []


def test_a_failure_in_the_middle_leaves_all_as_it_was(world: World) -> None:
    world.service.apply(document("a"), said)
    before = world.service.show()
    world.hbas[0].refuse[2] = "no such file"
    with pytest.raises(HostError, match="no such file"):
        world.service.apply(document("a", "b", "c"), said)
    assert world.service.show() == before
    assert world.linked == {0: {0}}


def test_a_wrong_document_is_refused_with_its_place(world: World) -> None:
    wanted = document("a")
    wanted["backstores"]["a"]["sise"] = 1
    for verb in (world.service.plan, lambda told: world.service.apply(told, said)):
        with pytest.raises(ConfigError, match=r"\$\.backstores\.a\.sise: "):
            verb(wanted)
    with pytest.raises(UsageError, match="prune cannot be 'some'"):
        world.service.plan(document("a"), "some")  # type: ignore[arg-type]


def test_a_change_that_is_impossible_live_needs_replace(world: World) -> None:
    world.service.apply(document("a"), said)
    other = document("a")
    other["hbas"][0]["luns"][0]["removable"] = True
    with pytest.raises(
        UsageError, match=r"replace LUN 0 of HBA 0: .*: not possible while the disk is attached; use --repl"
    ):
        world.service.apply(other, said)
    assert kinds(world.service.apply(other, said, replace=True)) == ["replace_lun"]


def test_a_disk_in_use_needs_force_and_nothing_else_is_done_before(world: World) -> None:
    world.service.apply(document("a", "b"), said)
    world.used[0, 1] = "/dev/sdb is mounted on /mnt"
    with pytest.raises(InUseError, match="remove LUN 1 of HBA 0: b: /dev/sdb is mounted on /mnt; release it"):
        world.service.apply(document("a"), said)
    assert world.linked == {0: {0, 1}}
    world.service.apply(document("a"), said, force=True)
    assert world.linked == {0: {0}}


def test_a_change_of_an_outdated_document_is_refused(world: World) -> None:
    seen = world.service.show()
    world.service.apply(document("a"), said)
    with pytest.raises(
        InUseError, match="another program has changed the configuration meanwhile; check it, and try again"
    ):
        world.service.apply(document("b", hba=1), said, "all", seen=seen)
    assert world.linked == {0: {0}}
    world.service.apply(document("b", hba=1), said, "all", seen=world.service.show())
    assert world.linked == {1: {0}}


def test_an_id_that_another_program_serves_is_refused_before_anything_is_done(world: World) -> None:
    with (
        lock_hba(5, world.folder / "run", by="vscsitarget"),
        pytest.raises(
            InUseError, match=r"HBA 5 is served by vscsitarget .*, not by the service; choose another"
        ),
    ):
        world.service.apply(document("a", hba=5), said)
    assert world.hbas == {}


def test_two_controllers_wait_for_each_other(world: World) -> None:
    begun, go = threading.Event(), threading.Event()

    def slowly(_report: object) -> None:
        begun.set()
        assert go.wait(60)

    first = threading.Thread(target=world.service.apply, args=(document("a"), slowly))
    second = threading.Thread(target=world.service.apply, args=(document("b", hba=1), said))
    first.start()
    assert begun.wait(60)
    second.start()
    assert world.service.show() == {"version": 1, "backstores": {}, "hbas": []}, "looking waits for nobody"
    go.set()
    first.join(60)
    second.join(60)
    assert world.linked == {0: {0}, 1: {0}}


def test_only_the_change_that_adds_a_disk_makes_its_medium(world: World) -> None:
    world.service.apply(document("a"), said)
    makes = world.hbas[0].makes
    assert makes == [True]
    other = document("a")
    other["hbas"][0]["luns"][0]["removable"] = True
    world.service.apply(other, said, replace=True)
    assert makes == [True, False], "the disk is another one, its medium is not"
    grown = document("a")
    grown["backstores"]["a"]["size"] = "4MiB"
    world.service.apply(grown, said, replace=True)
    assert makes == [True, False, False], "put up as it was, then enlarged"
    assert (0, "resize", 0) in world.hbas[0].asked
    (engine,) = world.hbas[0].living
    engine.die()
    wait_until(lambda: makes[3:] == [False])
    for each in world.hbas[0].engines:
        each.closed = False
    world.born().resume()
    assert not any(makes[3:])


def test_a_disk_whose_replacement_fails_and_that_cannot_come_back_at_once_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_pool, "PAUSES", (0.01,))
    world.service.apply(document("a"), said)
    before = world.service.show()
    world.hbas[0].refuse[0] = "the kernel has no memory"
    wanted = document("b")
    wanted["backstores"]["b"] = {"handler": "null", "size": "1MiB"}
    with pytest.raises(HostError, match="the kernel has no memory"):
        world.service.apply(wanted, said, "all", replace=True, force=True)
    assert world.service.show() == before
    told: Any = world.service.status()
    assert told["hbas"][0]["luns"][0]["state"] == "failing: the kernel has no memory"
    world.hbas[0].refuse.clear()
    wait_until(lambda: world.hbas[0].linked == {0})
    wait_until(lambda: not world.supervisor.hbas[0].failures)


def test_growing(world: World) -> None:
    world.service.apply(document("a"), said)
    told: Any = world.service.resize("a", 4 * MiB, said)
    assert kinds(told) == ["resize"]
    shown: Any = world.service.show()
    assert shown["backstores"]["a"]["size"] == "4MiB"
    with pytest.raises(ConfigError, match="a disk cannot shrink"):
        world.service.resize("a", MiB, said)
    with pytest.raises(UsageError, match="there is no backstore 'b'"):
        world.service.resize("b", MiB, said)


def test_a_source_without_a_size_is_an_error(world: World) -> None:
    for name in "ab":
        (world.folder / name).write_bytes(bytes(MiB))
    first, second = ({"handler": "file", "path": str(world.folder / name)} for name in "ab")
    wanted = document("mirrored", "overlaid")
    wanted["backstores"] = {
        "mirrored": {"handler": "mirror", "path": str(world.folder / "m"), "create": True, "legs": [first]},
        "overlaid": {
            "handler": "cow",
            "path": str(world.folder / "o"),
            "create": True,
            "next": {**second, "read_only": True},
        },
    }
    world.service.apply(wanted, said)
    with pytest.raises(
        UsageError, match="mirrored cannot grow while the disk is in use: its lowest layer, mirror, ta"
    ):
        world.service.resize("mirrored", 4 * MiB, said)
    with pytest.raises(
        UsageError, match="overlaid cannot grow: its lowest layer, file, is read-only; replace"
    ):
        world.service.resize("overlaid", 4 * MiB, said)


def test_clearing_one_and_all(world: World) -> None:
    world.service.apply(document("a"), said)
    world.service.apply(document("b", hba=1), said)
    world.service.clear(said, 1)
    assert world.linked == {0: {0}}
    with pytest.raises(UsageError, match="HBA 1 is not managed by the service"):
        world.service.clear(said, 1)
    world.service.clear(said)
    assert world.linked == {}
    assert world.service.show() == {"version": 1, "backstores": {}, "hbas": []}


def test_a_new_service_adopts_the_running_document(world: World) -> None:
    world.service.apply(document("a", "b", engines=2), said)
    engines = list(world.hbas[0].engines)
    for engine in engines:
        engine.closed = False
    world.born().resume()
    assert world.hbas[0].engines == engines, "adopted, not started"
    assert kinds(world.service.plan(document("a", "b", engines=2))) == []


def test_a_new_service_adopts_stacks_that_have_drifted(world: World) -> None:
    world.service.apply(document("a", "b"), said)
    (engine,) = world.hbas[0].engines
    engine.closed = False
    now = {"handler": "readonly", "next": {"handler": "memory", "size": MiB}}
    engine.stacks[0] = now
    world.born().resume()
    shown: Any = world.service.show()
    small = {"handler": "memory", "size": "1MiB"}
    assert shown["backstores"] == {"a": {"handler": "readonly", "next": small}, "b": small}
    assert world.supervisor.hbas[0].specs[0].document == {"handler": "readonly", "next": small}
    assert world.supervisor.hbas[0].failures == {}


def test_a_new_life_takes_no_disk_for_another_that_was_to_replace_it(world: World) -> None:
    wanted = document("a")
    wanted["backstores"]["b"] = {"handler": "null", "size": "1MiB"}
    world.service.apply(wanted, said)
    (engine,) = world.hbas[0].engines
    engine.closed = False
    engine.stacks[0] = wanted["backstores"]["b"]
    before = world.service.show()
    world.born().resume()
    assert world.service.show() == before


def test_a_start_of_the_machine_restores_the_saved_document(world: World) -> None:
    world.service.apply(document("a"), said)
    assert world.service.save() == {"path": str(world.folder / "etc/config.json")}
    world.service.clear(said)
    (world.folder / "run/running.json").unlink()
    world.born().resume()
    assert world.linked == {0: {0}}


def test_another_device_under_the_same_name_is_failing_until_it_is_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, other = world.folder / "sdb", world.folder / "sdc"
    found = {str(device): "naa.1", str(other): "naa.2"}
    monkeypatch.setattr(known_devices, "_is_device", lambda path: path in found)
    monkeypatch.setattr(known_devices, "_identity", found.__getitem__)
    monkeypatch.setattr(engine_pool, "PAUSES", (0.01,) * 7)
    wanted = document("a", "b")
    for path, name in ((device, "a"), (other, "b")):
        path.write_bytes(bytes(MiB))
        wanted["backstores"][name] = {"handler": "file", "path": str(path)}
    world.service.apply(wanted, said)
    world.service.save()
    world.service.clear(said)
    (world.folder / "run/running.json").unlink()
    found[str(device)] = "naa.3"
    world.born().resume()
    assert world.linked == {0: {1}}
    told: Any = world.service.status()
    failing, _ = told["hbas"][0]["luns"]
    assert failing["state"].startswith(
        f"failing: {device} is another device than when it was applied: naa.3, not naa.1; "
    )
    world.service.apply({**wanted, "backstores": {"b": wanted["backstores"]["b"]}, "hbas": []}, said)
    assert world.linked == {0: {1}}, "that has accepted the other device only"
    world.service.apply(world.service.show(), said)
    wait_until(lambda: world.linked == {0: {0, 1}})
    world.born().resume()
    assert world.linked == {0: {0, 1}}


def test_a_saved_document_that_is_broken_keeps_the_service_from_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (world.folder / "etc").mkdir()
    (world.folder / "etc/config.json").write_text("{")
    (world.folder / "run/running.json").unlink()
    world.born().resume()
    assert "not restored: " in caplog.text
    assert "config.json: line 1, column 2: this is not JSON" in caplog.text
    assert not (world.folder / "run/running.json").exists(), "what is to run is not known"
    told: Any = world.service.status()
    assert ["not restored: " in problem for problem in told["problems"]] == [True]
    world.service.apply(document("a"), said)
    assert world.linked == {0: {0}}
    with pytest.raises(
        UsageError, match=r"the saved document has entries that were not restored: .*; correct it there"
    ):
        world.service.save()


def start_of_the_machine(world: World, saved: str) -> None:
    (world.folder / "etc").mkdir(exist_ok=True)
    (world.folder / "etc/config.json").write_text(saved)
    (world.folder / "run/running.json").unlink()
    world.born().resume()


def test_one_bad_entry_is_failing_and_all_others_are_restored(world: World) -> None:
    good, bad = document("a", "b", "c"), document("a", "b", "c")
    bad["backstores"]["b"]["sise"] = 1
    start_of_the_machine(world, json.dumps(bad))
    assert world.linked == {0: {0, 2}}
    told: Any = world.service.status()
    states = {lun["lun"]: lun["state"] for lun in told["hbas"][0]["luns"]}
    assert sorted(states) == [0, 1, 2]
    assert states[1].startswith("failing: $.backstores.b.sise: handler memory has no option 'sise'")
    assert told["problems"] == []
    world.service.retry()
    assert world.linked == {0: {0, 2}}
    (world.folder / "etc/config.json").write_text(json.dumps(good))
    world.service.retry()
    assert world.linked == {0: {0, 1, 2}}
    assert kinds(world.service.plan(good)) == []
    assert world.hbas[0].makes == [False, False, False], "a restart makes no medium"


def test_mending_the_file_and_restarting_helps(world: World) -> None:
    good, bad = document("a", "b"), document("a", "b")
    bad["hbas"][0]["luns"][1]["colour"] = "red"
    start_of_the_machine(world, json.dumps(bad))
    (world.folder / "etc/config.json").write_text(json.dumps(good))
    for engine in world.hbas[0].engines:
        engine.closed = False
    world.born().resume()
    assert world.linked == {0: {0, 1}}
    assert sorted(path.name for path in (world.folder / "run").iterdir()) == ["running.json"]


def test_mending_a_file_of_which_nothing_could_be_read_helps(world: World) -> None:
    start_of_the_machine(world, "{")
    world.service.apply(document("x", hba=7), said)
    (world.folder / "etc/config.json").write_text(json.dumps(document("a")))
    for engine in world.hbas[7].engines:
        engine.closed = False
    world.born().resume()
    assert world.linked == {0: {0}, 7: {0}}


def test_an_awaited_entry_is_dropped_after_a_change_of_its_hba(world: World) -> None:
    bad = document("a", "b")
    bad["backstores"]["b"]["sise"] = 1
    start_of_the_machine(world, json.dumps(bad))
    world.service.apply(document("a"), said, "none")
    assert len(world.service.awaited.unread) == 1
    with pytest.raises(UsageError, match="the saved document has entries that were not restored"):
        world.service.save()
    world.service.apply(document("a", "b"), said)
    assert not world.service.awaited.unread
    assert world.hbas[0].makes[-1] is False, "it had a medium once"
    world.service.clear(said)
    (world.folder / "etc/config.json").write_text(json.dumps(document("a", "b")))
    world.service.retry()
    assert world.linked == {}


def test_clearing_an_hba_ends_the_waiting_for_its_entries(world: World) -> None:
    bad = document("a")
    bad["backstores"]["a"]["sise"] = 1
    start_of_the_machine(world, json.dumps(bad))
    assert world.linked == {0: set()}
    world.service.clear(said, 0)
    assert not world.service.awaited.unread
    told: Any = world.service.status()
    assert told["hbas"] == []


def test_an_unreadable_record_removes_no_running_disk(world: World) -> None:
    world.service.apply(document("a", "b"), said)
    world.service.apply(document("c", hba=1), said)
    world.service.save()
    world.service.apply(document("d", hba=2), said)
    for hba in world.hbas.values():
        for engine in hba.engines:
            engine.closed = False
    (world.folder / "run/running.json").write_text("")
    world.born().resume()
    assert world.linked == {0: {0, 1}, 1: {0}, 2: {0}}
    assert [hba["id"] for hba in cast("Any", world.service.show())["hbas"]] == [0, 1]


def test_where_nothing_can_be_recorded_nothing_is_touched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.apply(document("a"), said)
    asked = len(world.hbas[0].asked)
    with monkeypatch.context() as full:
        full.setattr(state_module, "replace_file", refusing(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(HostError, match=r"running\.json: No space left on device"):
            world.service.apply(document("a", "b"), said)
        told: Any = world.service.status()
        assert told["problems"][0].startswith("the running configuration cannot be recorded: ")
    assert len(world.hbas[0].asked) == asked
    world.service.retry()
    told = world.service.status()
    assert told["problems"] == []


def test_an_action_that_cannot_be_recorded_is_reported_as_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.apply(document("a"), said)
    now = {"handler": "memory", "size": 2 * MiB}
    monkeypatch.setattr(owner, "act", lambda *_words, **_options: {"result": 1, "document": now})
    with monkeypatch.context() as full:
        full.setattr(state_module, "replace_file", refusing(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(
            HostError, match=r"the change is made, but cannot be recorded yet: .*Input/output error"
        ):
            world.service.act(hba=0, lun=0, layer="memory", action="grow", arguments={}, progress=said)
    world.service.retry()
    assert load(world.folder / "run/running.json").backstores["a"]["size"] == "2MiB"


def refusing(error: OSError) -> Callable[..., None]:
    def refuse(*_words: object) -> None:
        raise error

    return refuse


def test_an_action_that_ends_after_its_disk_was_replaced_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.apply(document("a"), said)
    other = document("a")
    other["backstores"]["a"] = {"handler": "null", "size": "3MiB"}

    def act(*_words: object, **_options: object) -> dict[str, object]:
        world.service.apply(other, said, replace=True)
        return {"result": 1, "document": {"handler": "readonly", "next": {"handler": "memory", "size": MiB}}}

    monkeypatch.setattr(owner, "act", act)
    world.service.act(hba=0, lun=0, layer="memory", action="x", arguments={}, progress=said)
    shown: Any = world.service.show()
    assert shown["backstores"] == other["backstores"]
    assert world.supervisor.hbas[0].specs[0].document == other["backstores"]["a"]


def test_an_unfinished_change_is_undone_by_the_next_service(world: World) -> None:
    world.hbas[9] = Hba()
    stranger = world.hbas[9].start(9)
    stranger.known = world.hbas[9].linked = {0}
    (world.folder / "run/hba9").mkdir()
    world.born().resume()
    assert world.linked == {}
    assert not stranger.alive


def test_saving_into_a_file_of_ones_own(world: World) -> None:
    world.service.apply(document("a"), said)
    where = world.folder / "mine.json"
    assert world.service.save(str(where)) == {"path": str(where)}
    assert load(where) == world.service.document
    with pytest.raises(UsageError, match=r"'mine\.json' is not an absolute path"):
        world.service.save("mine.json")


def test_a_layer_that_has_changed_itself_is_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.service.apply(document("a"), said)
    now = {"handler": "memory", "size": 2 * MiB}
    monkeypatch.setattr(owner, "act", lambda *_words, **_options: {"result": 1, "document": now})
    answer: Any = world.service.act(hba=0, lun=0, layer="memory", action="grow", arguments={}, progress=said)
    assert answer["result"] == 1
    shown: Any = world.service.show()
    assert shown["backstores"]["a"] == {"handler": "memory", "size": "2MiB"}
    (engine,) = world.hbas[0].engines
    engine.die()
    wait_until(lambda: [each.stacks for each in world.hbas[0].living] == [{0: shown["backstores"]["a"]}])


def anybody(_peer: Peer) -> bool:
    return True


def test_its_verbs_answer_on_a_socket(world: World) -> None:
    with ControlServer(world.folder / "s", world.service.verbs(), allowed=anybody) as server:
        heard: list[Any] = []
        call(server.path, "apply", {"document": document("a")}, timeout=60, progress=heard.append)
        assert [report["text"] for report in heard][-1] == "add LUN 0 of HBA 0: a"
        with pytest.raises(UsageError, match="wrong arguments for 'apply'"):
            call(server.path, "apply", {"dokument": {}}, timeout=60)
        told: Any = call(server.path, "status", timeout=60)
        (hba,) = told["hbas"]
        assert (hba["id"], hba["luns"][0]["backstore"], hba["luns"][0]["state"]) == (0, "a", "missing")
        assert sorted(world.service.verbs()) == [
            "act", "apply", "clear", "clear_statistics", "plan", "resize", "save", "show", "statistics",
            "status",
        ]  # fmt: skip


def test_at_shutdown_disks_in_use_are_served_until_they_are_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.apply(document("a"), said)
    world.service.apply(document("b", hba=1), said)
    world.used[0, 0] = "/dev/sda is mounted on /mnt"
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_options: calls.append(words))
    take_all_down(world.service, world.folder / "units")
    assert world.linked == {0: {0}}
    assert world.hbas[0].asked[-1][1] == "end"
    drop_in = world.folder / "units/rtslib-fb-targetctl.service.d/vscsihba.conf"
    assert drop_in.read_text() == "[Service]\nExecStop=\n", "it would remove the disk"
    assert calls == [["systemctl", "daemon-reload"]]


def test_at_shutdown_nothing_is_kept_from_other_targets_if_no_disk_is_in_use(world: World) -> None:
    world.service.apply(document("a"), said)
    take_all_down(world.service, world.folder / "units")
    assert not (world.folder / "units").exists()


def test_an_hba_whose_engines_cannot_be_found_affects_no_other(world: World) -> None:
    world.service.apply(document("a"), said)
    world.service.apply(document("b", hba=1), said)
    for hba in world.hbas.values():
        for engine in hba.engines:
            engine.closed = False
    service = world.born()
    find = world.supervisor._find

    def failing(hba_id: int) -> Any:
        if hba_id == 0:
            raise PermissionError(errno.EACCES, "Permission denied")
        return find(hba_id)

    world.supervisor._find = failing
    service.resume()
    assert world.linked == {0: {0}, 1: {0}}


def test_an_hba_that_is_not_wanted_and_stays_is_removed_later(world: World) -> None:
    world.service.apply(document("a", hba=7), said)
    world.supervisor.close()
    (world.folder / "run/hba7").mkdir()
    (world.folder / "run/running.json").write_text('{"version": 1}')
    refusals = [True]

    found = world.supervisor._find

    def find(hba_id: int) -> Any:
        if refusals:
            raise HostError(f"no answer: {refusals.pop()}")
        return found(hba_id)

    service = world.born()
    world.supervisor._find = find
    service.resume()
    assert world.supervisor.is_unfinished
    service.retry()
    assert not world.supervisor.is_unfinished
