"""The client side of the service's verbs, with a fake service behind a real socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService, serving
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.daemon.calls import Daemon, NoDaemonError, Step
from vscsihba.engine.owner import Action
from vscsihba.errors import HostError, UsageError

DOCUMENT = {
    "version": 1,
    "backstores": {"d1": {"handler": "memory", "size": "1MiB"}},
    "hbas": [{"id": 3, "luns": [{"lun": 0, "backstore": "d1"}]}],
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[FakeService, Daemon]]:
    with serving(tmp_path) as (fake, path):
        yield fake, Daemon(path)


def document() -> Document:
    return read(DOCUMENT, Path("/"))


def test_planned_changes_are_applied_step_by_step(service: tuple[FakeService, Daemon]) -> None:
    _, daemon = service
    planned = daemon.plan(document())
    steps: list[Step] = []
    done = daemon.apply(document(), progress=steps.append)
    assert [each["text"] for each in planned["changes"]] == [each["text"] for each in steps]
    assert done["changes"] == planned["changes"]
    assert [each["kind"] for each in done["changes"]] == ["add_backstore", "add_hba", "add_lun"]
    assert daemon.show() == DOCUMENT
    assert daemon.plan(document())["changes"] == []


def test_prune_is_sent(service: tuple[FakeService, Daemon]) -> None:
    _, daemon = service
    daemon.apply(document())
    assert daemon.plan(Document())["changes"] == []
    assert len(daemon.plan(Document(), prune="all")["changes"]) == 3
    daemon.apply(Document(), prune="all")
    assert daemon.status()["hbas"] == []


def test_the_other_verbs(service: tuple[FakeService, Daemon], tmp_path: Path) -> None:
    fake, daemon = service
    daemon.apply(document())
    daemon.resize("d1", 2 << 20)
    assert daemon.status()["hbas"][0]["luns"][0]["size"] == 2 << 20
    assert daemon.save() == tmp_path / "config.json"
    assert daemon.save(tmp_path / "copy.json", force=True) == tmp_path / "copy.json"
    daemon.act(Action(3, 0, "snapshot", "take", {"name": "monday"}))
    assert fake.calls == ["3/0 snapshot.take {'name': 'monday'}"]
    daemon.clear(3)
    assert fake.running.empty


def test_errors_are_the_services(service: tuple[FakeService, Daemon]) -> None:
    fake, daemon = service
    with pytest.raises(UsageError, match="there is no backstore 'd1'"):
        daemon.resize("d1", 1 << 30)
    fake.refuse = HostError("the kernel refuses", cure="see dmesg")
    with pytest.raises(HostError, match="the kernel refuses; see dmesg"):
        daemon.apply(document())


def test_no_service_is_one_line_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError, match="the service is not running; start it: "):
        Daemon(tmp_path / "control.sock").show()


def test_interrupted_change_says_that_the_service_may_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("vscsihba.daemon.calls.call", interrupted)
    with pytest.raises(KeyboardInterrupt, match='the service may continue; see "vscsihba status"'):
        Daemon().clear(3)
    with pytest.raises(KeyboardInterrupt) as unchanged:
        Daemon().show()
    assert unchanged.value.args == ()
