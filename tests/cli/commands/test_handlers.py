"""``vscsihba handlers``: the list, and the options of one."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from vscsihba.cli.main import main
from vscsihba.handlers import registry as registry_module
from vscsihba.handlers.registry import Registry

CLOCK = """
from vscsihba.block import Geometry
from vscsihba.handlers.base import Handler

class Clock(Handler):
    '''A disk that tells the time.

    And nothing else.
    '''

    name = "clock"

    @property
    def geometry(self):
        return Geometry(1 << 20)

    def read(self, offset, views):
        pass
"""


@pytest.fixture
def clock(tmp_path: Path) -> str:
    path = tmp_path / "clock.py"
    path.write_text(CLOCK)
    return str(path)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["handlers", *words]) == 0
    return capsys.readouterr().out


def test_every_handler_is_listed_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line.split()[0]: line for line in shown(capsys).splitlines()}
    assert set(lines) == {"handler", *Registry().names()}
    assert lines["cow"].split(maxsplit=2)[1:] == [
        "filter",
        "Copy-on-write: changes go to an overlay, the base is never written",
    ]
    assert "fan " in lines["mirror"]
    assert "source " in lines["file"]


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = {entry["name"]: entry for entry in json.loads(shown(capsys, "--json"))}
    assert set(found) == set(Registry().names())
    assert found["readonly"] == {
        "name": "readonly",
        "kind": "filter",
        "summary": "A write-protected disk",
        "example": "readonly|/srv/disk.img",
    }


def test_one_is_shown_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "cow")
    assert text.startswith("cow, a filter: Copy-on-write: changes go to an overlay")
    assert "\nexample: cow:/srv/vm1.cow;create=true|/srv/golden.img\n" in text
    assert "\n  path: path; required\n      The overlay file.\n" in text
    assert "\n  create: true or false; default false\n" in text
    assert "no options" in shown(capsys, "readonly")


def test_one_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "memory", "--json"))
    options = {option["name"]: option for option in found["options"]}
    assert options["size"]["required"]
    assert (options["block_size"]["default"], options["label"]["default"]) == (512, "")


def test_files_of_ones_own(clock: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nclock     source  A disk that tells the time\n" in shown(capsys, "--handler", clock)
    for words in (["clock", "--handler", clock], [clock]):
        assert shown(capsys, *words).startswith("clock, a source: A disk that tells the time\n")


def test_a_package_that_is_broken_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point = EntryPoint(name="theirs", value="nowhere.at:all", group=registry_module.GROUP)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
    text = shown(capsys)
    assert "theirs    BROKEN  handler theirs (nowhere.at:all) cannot be imported" in text
    assert "\nfile      source " in text
    assert "error" in json.loads(shown(capsys, "--json"))[-1]


def test_what_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["handlers", "memroy"]) == 2
    assert capsys.readouterr().err == ("vscsihba: there is no handler 'memroy'; did you mean \"memory\"?\n")
