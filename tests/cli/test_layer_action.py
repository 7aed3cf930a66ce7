"""The commands snapshot, mirror and qemu: the actions that they ask for, and the text that they print."""

import json
from pathlib import Path
from typing import Any

import pytest

from vscsihba.cli.main import main
from vscsihba.control import NotListeningError
from vscsihba.daemon.calls import Daemon
from vscsihba.engine import owner
from vscsihba.engine.owner import Action
from vscsihba.errors import UsageError
from vscsihba.handlers.stack import build

LEGS = {
    "legs": [
        {"number": 0, "identity": "file:1", "standing": "whole", "error": ""},
        {"number": 1, "identity": "file:2", "standing": "gone", "error": "No such device"},
    ],
    "resync": {"done": 1, "of": 4},
}
ANSWERS = {"list": [{"name": "monday", "created": 0.0}], "status": LEGS, "add_leg": 2}

Asked = list[Action]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Calls that the service received."""
    seen: Asked = []

    def act(_self: Daemon, wanted: Action, *, progress: Any) -> object:
        seen.append(wanted)
        progress({"done": 1, "of": 2})
        return {"owner": True, "result": ANSWERS.get(wanted.action), "document": None}

    monkeypatch.setattr(Daemon, "act", act)
    return seen


@pytest.mark.parametrize(
    ("words", "wanted", "printed"),
    [
        (
            "snapshot take hba0/lun3 monday",
            Action(0, 3, "snapshot", "take", {"name": "monday"}),
            "took snapshot monday of hba0/lun3\n",
        ),
        (
            "snapshot roll-back --force hba255/lun0 monday",
            Action(255, 0, "snapshot", "roll_back", {"name": "monday"}, force=True),
            "restored hba255/lun0 to snapshot monday\n",
        ),
        (
            "mirror add-leg hba0/lun0 /srv/c.img",
            Action(0, 0, "mirror", "add_leg", {"leg": {"handler": "file", "path": "/srv/c.img"}}),
            "added leg 2 to hba0/lun0\n",
        ),
        (
            'mirror add-leg hba0/lun0 {"handler":"file","path":"/srv/c.img"}',
            Action(0, 0, "mirror", "add_leg", {"leg": {"handler": "file", "path": "/srv/c.img"}}),
            "added leg 2 to hba0/lun0\n",
        ),
        (
            "mirror add-leg --overwrite hba0/lun0 /srv/c.img",
            Action(
                0,
                0,
                "mirror",
                "add_leg",
                {"leg": {"handler": "file", "path": "/srv/c.img"}, "overwrite": True},
            ),
            "added leg 2 to hba0/lun0\n",
        ),
        (
            "mirror remove-leg hba0/lun0 1",
            Action(0, 0, "mirror", "remove_leg", {"number": 1}),
            "removed leg 1 from hba0/lun0\n",
        ),
    ],
)
def test_what_is_asked(
    words: str, wanted: Action, printed: str, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 0
    assert asked == [wanted]
    assert capsys.readouterr().out == printed


def test_tables(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "list", "hba0/lun0"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "taken"]
    assert line.startswith("monday  19")
    assert main(["mirror", "status", "hba0/lun0"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed] == [
        ["leg", "state", "medium", "reason"],
        ["0", "whole", "file:1"],
        ["1", "gone", "file:2", "No", "such", "device"],
        ["resync:", "1", "of", "4", "regions"],
    ]
    assert main(["mirror", "status", "hba0/lun0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == LEGS


def test_without_a_daemon_the_engine_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(*_words: Any, **_more: Any) -> object:
        raise NotListeningError("nobody listens")

    def act(wanted: Action, **_more: Any) -> object:
        raise UsageError(f"asked {wanted.hba} {wanted.lun} {wanted.action}")

    monkeypatch.setattr(Daemon, "act", nobody)
    monkeypatch.setattr(owner, "act", act)
    assert main(["snapshot", "tidy", "hba1/lun2"]) == 2
    assert capsys.readouterr().err == "vscsihba: asked 1 2 tidy\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("snapshot take lun0 x", "'lun0' is not a disk; use hba0/lun1, or /dev/sdb"),
        ("snapshot take hba0/lun0", "required: NAME"),
        ("mirror remove-leg hba0/lun0 one", "leg 'one' is not a number"),
        ("mirror add-leg hba0/lun0 {x", "'{x' is not JSON"),
        ("mirror overwrite hba0/lun0 one", "leg 'one' is not a number"),
        ("mirror examine /nowhere/x.img", "/nowhere/x.img: no such file"),
        ("mirror erase-mark /nowhere/x.img", "/nowhere/x.img: no such file"),
    ],
)
def test_refusals(words: str, message: str, asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert asked == []
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert message in printed.err


def test_a_path_is_one_of_here(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mirror", "add-leg", "hba0/lun0", "c.img"]) == 0
    assert asked[0].arguments == {"leg": {"handler": "file", "path": str(tmp_path / "c.img")}}


def test_a_leg_that_is_gone_is_overwritten(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mirror", "overwrite", "hba0/lun0", "1"]) == 0
    assert asked == [
        Action(0, 0, "mirror", "overwrite", {"number": 1}),
        Action(0, 0, "mirror", "status", {}),
    ]
    assert capsys.readouterr().out.splitlines()[0].split() == ["leg", "state", "medium", "reason"]


def test_marks_of_legs_that_are_not_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(bytes(65536))
    legs = [str(tmp_path / f"{name}.img") for name in "ab"]
    stack = build({"handler": "mirror", "path": str(tmp_path / "m"), "create": True, "legs": legs})
    stack.open()
    assert main(["mirror", "examine", legs[0]]) == 1
    assert "is in use" in capsys.readouterr().err
    stack.close()
    assert main(["mirror", "examine", legs[0], "--json"]) == 0
    mark = json.loads(capsys.readouterr().out)
    assert (mark["version"], mark["size"], len(mark["legs"])) == (2, 65536, 2)
    assert main(["mirror", "examine", legs[0]]) == 0
    printed = capsys.readouterr().out
    assert f"mirror {mark['uuid']}, leg {mark['leg']}, event {mark['event']}" in printed
    assert mark["legs"][1]["uuid"] in printed
    assert main(["mirror", "erase-mark", legs[0]]) == 0
    assert capsys.readouterr().out == f"erased the mark of {legs[0]}\n"
    for verb in ("examine", "erase-mark"):
        assert main(["mirror", verb, legs[0]]) == 2
        assert "no mirror mark found" in capsys.readouterr().err


STATUS = {"path": "/srv/a b.qcow2", "format": "qcow2", "backing": "", "daemon": 4711, "logged": 3}
CHECKED = {"filename": "/srv/a b.qcow2", "corruptions": 0, "leaks": 0, "check-errors": 0}


def test_qemu_status_is_a_table(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ANSWERS, "status", STATUS)
    assert main(["qemu", "status", "hba0/lun0"]) == 0
    assert asked == [Action(0, 0, "qemu", "status", {})]
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["image", "/srv/a b.qcow2"] in lines
    assert ["daemon", "process 4711"] in lines
    monkeypatch.setitem(ANSWERS, "status", STATUS | {"daemon": None})
    assert main(["qemu", "status", "hba0/lun0"]) == 0
    assert "being started" in capsys.readouterr().out
    assert main(["qemu", "status", "hba0/lun0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["logged"] == 3


@pytest.mark.parametrize(
    ("found", "code", "printed"),
    [
        ({}, 0, "hba0/lun0: '/srv/a b.qcow2' has no faults\n"),
        (
            {"leaks": 2},
            0,
            "has clusters that nothing uses (2), which is no fault; to free them, remove the disk",
        ),
        ({"corruptions": 1}, 1, "is damaged (corruptions: 1, errors of the check: 0); save its data first"),
        ({"check-errors": 1}, 1, "is damaged (corruptions: 0, errors of the check: 1)"),
    ],
)
def test_a_check_of_an_image_ends_with_a_verdict(
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: dict[str, int],
    code: int,
    printed: str,
) -> None:
    monkeypatch.setitem(ANSWERS, "check", CHECKED | found)
    assert main(["qemu", "check", "hba0/lun0"]) == code
    assert asked == [Action(0, 0, "qemu", "check", {})]
    assert printed in capsys.readouterr().out
    assert main(["qemu", "check", "hba0/lun0", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == CHECKED | found
