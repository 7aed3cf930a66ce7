"""The program ``vscsihba``: its help, how it finds a command, and how it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from vscsihba.cli.command_table import COMMANDS
from vscsihba.cli.main import main

TOP = Path(__file__).parents[2]


def test_help_shows_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS.values():
        assert f"  {command.name} " in text
        assert command.summary in text
    assert max(map(len, text.splitlines())) <= 110


def test_help_imports_no_command_and_nothing_heavy() -> None:
    program = (
        "import sys; from vscsihba.cli.main import main; main(['--help']); print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.splitlines())
    heavy = {
        "rich",
        "msgspec",
        "rtslib_fb",
        "pyudev",
        "configshell_fb",
        "vscsihba.configfs",
        "vscsihba.handlers",
    }
    assert not loaded & heavy
    assert {name for name in loaded if name.startswith("vscsihba.cli.")} == {
        "vscsihba.cli.command_table",
        "vscsihba.cli.program",
        "vscsihba.cli.main",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", name]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: vscsihba {name}")
    assert "\nexamples:\n  vscsihba " in text
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_an_unknown_word_in_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--no-such-word"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f'see "vscsihba {name}' in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], 'vscsihba: no command is given; see "vscsihba --help"\n'),
        (["docto"], "vscsihba: unknown command 'docto'; did you mean \"doctor\"?\n"),
        (["help", "docto"], "vscsihba: unknown command 'docto'; did you mean \"doctor\"?\n"),
        (["--json"], "vscsihba: unknown option '--json' before the command; see \"vscsihba --help\"\n"),
    ],
)
def test_what_is_no_command_is_one_line_with_the_cure(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", line)


def test_the_module_can_be_run_and_knows_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vscsihba", "--version"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("vscsihba 0.")
