"""The command line runs what is asked for, and says how to see a finding again."""

import json
import sys

import pytest

from tests.sim import __main__ as program
from tests.sim.exhaustive import Finding


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sim", *arguments])
    return program.main()


def test_one_point_with_its_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--point", "EIO@2:close", "--trace", "file") == 0
    told = capsys.readouterr().out
    assert "open disk.img EIO" in told
    assert "1 fault points" in told
    assert "0 broken promises" in told


def test_one_history_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--seed", "1", "--trace", "--json", "file") == 0
    told = capsys.readouterr().out
    assert json.loads(told[told.index("\n{") :])["histories"] == 1


def test_one_history_of_engines_with_their_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--lane", "engines", "--seed", "1", "--trace", "file") == 0
    told = capsys.readouterr().out
    assert "engine0: open disk.img" in told
    assert "       command 1: " in told
    assert "       answer 1: 0x0" in told
    assert "1 histories" in told


@pytest.mark.parametrize(
    ("point", "again"),
    [
        ("seed 7", "--seed 7 --trace cow"),
        ("engines, seed 7", "--lane engines --seed 7 --trace cow"),
        ("EIO@3:kill", "--point EIO@3:kill --trace cow"),
    ],
)
def test_a_finding_says_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str], point: str, again: str
) -> None:
    program.show(program.Tally(findings=[Finding("cow", point, "", "lost")]))
    assert f"again: ./dev sim {again}\n" in capsys.readouterr().out


def test_unknown_layers_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "floppy")
    assert "no layer floppy; known are file, direct" in capsys.readouterr().err
