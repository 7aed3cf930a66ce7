"""Output: compact tables; colours and bars on terminals only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from tests.daemon.fake import serving
from tests.terminal import Terminal
from vscsihba.cli.output import print_json, print_table, table_lines, wrapped

TOP = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path
from vscsihba.daemon import calls
calls.SOCKET = Path(sys.argv.pop(1))
from vscsihba.cli.main import main
sys.exit(main())
"""


def test_a_table_is_columns_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["a", Text("bcd", style="red"), "x" * 300], ["aaaa", "", ""]], ("ONE", "TWO", "THREE"))
    assert capsys.readouterr().out == f"ONE   TWO  THREE\na     bcd  {'x' * 300}\naaaa\n"


def test_text_is_never_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["[red]file[/red]", ":smile:"]])
    assert capsys.readouterr().out == "[red]file[/red]  :smile:\n"


def test_an_empty_table_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([])
    assert capsys.readouterr().out == ""


def test_json_is_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, None, "ä"]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None, "ä"]}


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "disks.json"
    backstores = {"d1": {"handler": "memory", "size": "1MiB"}}
    hbas = [{"id": 0, "luns": [{"lun": 0, "backstore": "d1"}]}]
    path.write_text(json.dumps({"version": 1, "backstores": backstores, "hbas": hbas}))
    return path


def environment(**more: str) -> dict[str, str]:
    dropped = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": str(TOP), **more}


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(folder / "control.sock"), *words]


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_shows_changes_in_colour(
    more: dict[str, str], coloured: bool, tmp_path: Path, document: Path
) -> None:
    with (
        serving(tmp_path),
        Terminal(command(tmp_path, "plan", str(document)), environment(**more)) as terminal,
    ):
        terminal.wait_for("^3 to add$")
        assert terminal.end() == 0
        assert "+ add LUN 0 of HBA 0: d1" in terminal.text
        assert terminal.coloured == coloured


def test_a_terminal_shows_how_far_apply_is_and_then_what_was_done(tmp_path: Path, document: Path) -> None:
    with serving(tmp_path), Terminal(command(tmp_path, "apply", str(document)), environment()) as terminal:
        terminal.wait_for("^done: 3 changes$")
        assert terminal.end() == 0
        assert "+ add HBA 0" in terminal.text


def test_a_pipe_gets_plain_lines(tmp_path: Path, document: Path) -> None:
    with serving(tmp_path):
        done = subprocess.run(
            command(tmp_path, "apply", str(document)),
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("[1/3] add backstore d1: memory 1MiB\n[2/3] ")


def lines(width: int | None, *row: str) -> list[str]:
    return [line.plain for line in table_lines([row], (), width)]


def test_a_narrow_terminal_wraps_the_last_column_only() -> None:
    row = ("first", "second column", "a last one of some words, and some more of them")
    assert lines(60, *row) == [
        "first  second column  a last one of some words, and some",
        "                      more of them",
    ]
    assert lines(None, *row) == ["  ".join(row)]


def test_a_last_column_without_room_begins_on_the_next_line() -> None:
    row = ("first", "second column", "a last one of some words, and more")
    assert lines(35, *row) == ["first  second column", "    a last one of some words, and", "    more"]


def test_paths_and_quoted_commands_are_never_broken() -> None:
    path = f"/srv/{'long' * 20}.img"
    assert [line.plain for line in wrapped(Text(f"no such file: {path}; look"), 30)] == [
        "no such file:",
        f"{path};",
        "look",
    ]
    assert [line.plain for line in wrapped(Text('use "vscsihba clear 7" now'), 20)] == [
        "use",
        '"vscsihba clear 7"',
        "now",
    ]


def test_colours_survive_wrapping() -> None:
    found = list(wrapped(Text("one two", style="red"), 4))
    assert [(line.plain, line.style) for line in found] == [("one", "red"), ("two", "red")]
