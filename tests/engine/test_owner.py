"""Requests to the engine that owns a LUN."""

from pathlib import Path
from typing import Any

import pytest

from vscsihba import configfs
from vscsihba.control import ControlServer
from vscsihba.control.server import ProgressCallback
from vscsihba.engine.owner import Action, act
from vscsihba.errors import HostError, InUseError, UsageError


class Engine:
    """The control socket of an engine that owns some LUNs."""

    def __init__(self, run: Path, number: int, *owned: int) -> None:
        self.asked: list[dict[str, Any]] = []
        self._owned = set(owned)
        self.server = ControlServer(run / "hba3" / f"engine-{number}.control", {"act": self._act})

    def _act(self, lun: int, progress: ProgressCallback, **asked: Any) -> object:
        self.asked.append(asked)
        if lun not in self._owned:
            self._owned.add(lun)  # as if it were handed over meanwhile
            return {"owner": False, "known": True}
        progress({"done": 1, "of": 2})
        return {"owner": True, "result": [lun], "document": None}


def test_the_owner_is_found(tmp_path: Path) -> None:
    first, second = Engine(tmp_path, 1, 0), Engine(tmp_path, 2, 1)
    heard: list[object] = []
    with first.server, second.server:
        answer = act(Action(3, 1, "snapshot", "take", {"name": "x"}), run=tmp_path, progress=heard.append)
    assert answer["result"] == [1]
    assert heard == [{"done": 1, "of": 2}]
    assert second.asked == [
        {"layer": "snapshot", "action": "take", "arguments": {"name": "x"}, "force": False}
    ]


@pytest.mark.parametrize("fault", [None, HostError("it is gone"), InUseError("a partition is in use")])
def test_partitions_that_the_owner_may_not_read_again_are_read_again_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    reread: list[Path] = []

    def read_again(disk: Path) -> None:
        reread.append(disk)
        if fault is not None:
            raise fault

    monkeypatch.setattr(configfs, "reread_partitions", read_again)
    said = {"owner": True, "result": 5, "document": None, "reread": "/dev/sdq"}
    with ControlServer(tmp_path / "hba3" / "engine-1.control", {"act": lambda **_asked: said}):
        answer = act(Action(3, 0, "snapshot", "revert", {}), run=tmp_path)
    assert answer == {"owner": True, "result": 5, "document": None}
    assert reread == [Path("/dev/sdq")]
    assert (str(fault) in caplog.text) == (fault is not None)


def test_a_handover_is_waited_for(tmp_path: Path) -> None:
    engine = Engine(tmp_path, 1)
    with engine.server:
        assert act(Action(3, 7, "snapshot", "list", {}), run=tmp_path)["result"] == [7]
    assert len(engine.asked) == 2


def test_engines_that_were_killed_are_passed_over(tmp_path: Path) -> None:
    engine = Engine(tmp_path, 2, 0)
    with engine.server:
        (tmp_path / "hba3" / "engine-1.control").touch()
        assert act(Action(3, 0, "snapshot", "list", {}), run=tmp_path)["result"] == [0]


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no engine serves HBA 3; see"):
        act(Action(3, 0, "snapshot", "list", {}), run=tmp_path)


def test_nobody_who_knows_it(tmp_path: Path) -> None:
    server = ControlServer(
        tmp_path / "hba3" / "engine-1.control", {"act": lambda **_asked: {"owner": False, "known": False}}
    )
    with server, pytest.raises(UsageError, match="HBA 3 has no LUN 9, or cannot serve it; see"):
        act(Action(3, 9, "snapshot", "list", {}), run=tmp_path)


def test_nobody_who_owns_it(tmp_path: Path) -> None:
    server = ControlServer(
        tmp_path / "hba3" / "engine-1.control", {"act": lambda **_asked: {"owner": False, "known": True}}
    )
    with server, pytest.raises(HostError, match="no engine of HBA 3 serves LUN 9"):
        act(Action(3, 9, "snapshot", "list", {}), run=tmp_path, patience=0.2)
