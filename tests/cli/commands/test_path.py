"""``vscsihba path``: the paths to disks, and the states of those of exports."""

import json
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService
from vscsihba.cli.main import main
from vscsihba.config.load import read

A, B = "iqn.2026-11.example:a", "iqn.2026-11.example:b"
HOST = "iqn.2026-11.example:host1"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def paths(service: FakeService) -> FakeService:
    """A disk that this computer and two exports show, and one that only an export shows."""
    export = {"transport": "iscsi", "initiators": [{"name": HOST}], "portals": ["192.0.2.7:3260"]}
    both = [{"lun": 0, "backstore": "d1"}, {"lun": 1, "backstore": "d2"}]
    service.running = read(
        {
            "version": 1,
            "backstores": {name: {"handler": "memory", "size": "1MiB"} for name in ("d1", "d2")},
            "hbas": [
                {
                    "id": 0,
                    "luns": [
                        {"lun": 0, "backstore": "d1"},
                        {"lun": 1, "backstore": "d2", "local": False},
                    ],
                }
            ],
            "exports": [
                {**export, "name": A, "luns": both},
                {**export, "name": B, "portals": ["192.0.2.8:3260"], "luns": both[:1]},
            ],
        },
        Path("/"),
    )
    service.sessions = [{"initiator": HOST, "addresses": ["192.0.2.4"]}]
    return service


def test_every_path_is_shown(paths: FakeService, capsys: Capture) -> None:
    assert main(["path", "set", B, "--state", "standby"]) == 0
    assert capsys.readouterr().out == f"{B}: every LUN is standby\n"
    assert main(["path", "show"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [
        ["d1", "hba0/lun0", "0", "-", "active", "/dev/sda"],
        ["d1", A, "0", "192.0.2.7:3260", "active", HOST],
        ["d1", B, "0", "192.0.2.8:3260", "standby", HOST],
        ["d2", A, "1", "192.0.2.7:3260", "active", HOST],
    ]
    assert main(["path", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[2] == {
        "backstore": "d2",
        "path": A,
        "lun": 1,
        "portal": "192.0.2.7:3260",
        "state": "active",
        "used_by": [HOST],
    }


def test_one_lun_of_an_export_changes(paths: FakeService, capsys: Capture) -> None:
    assert main(["path", "set", A, "--state", "unavailable", "--lun", "1"]) == 0
    assert [(lun.lun, lun.state) for lun in paths.running.exports[0].luns] == [
        (0, "active"),
        (1, "unavailable"),
    ]
    assert main(["path", "set", A, "--state", "unavailable", "--lun", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{A}: LUN 1 is unavailable already"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["iqn.2026-11.example:c", "--state", "standby"], "there is no export"),
        ([B, "--state", "standby", "--lun", "1"], f"the export {B} has no LUN 1"),
        ([B, "--state", "asleep"], "invalid choice"),
    ],
)
def test_a_path_that_does_not_exist_changes_nothing(
    paths: FakeService, capsys: Capture, words: list[str], said: str
) -> None:
    before = paths.running
    assert main(["path", "set", *words]) == 2
    assert said in capsys.readouterr().err
    assert paths.running == before


def test_without_disks_there_is_no_path(service: FakeService, capsys: Capture) -> None:
    assert main(["path", "show"]) == 0
    assert capsys.readouterr().out == "no paths\n"
