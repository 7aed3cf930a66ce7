"""Mutants have one fault each, and the runner tells the noticed from the survivors."""

import ast
from pathlib import Path

import pytest

from tests.mutation import runner
from tests.mutation.harmless import HARMLESS
from tests.mutation.modules import TARGETS, Target
from tests.mutation.mutants import mutants


def made(source: str) -> list[str]:
    """Return the source of every mutant."""
    return [ast.unparse(mutant.tree) for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a and b", ["x = b", "x = a"]),
        ("x = a or b or c", ["x = b or c", "x = a or c", "x = a or b"]),
        ("x = not a", ["x = a"]),
        ("f(a)", ["pass"]),
        ("log.info(a)", []),
        ("with lock:\n    g = f(a)", ["if 1:\n    g = f(a)"]),
        ("if a:\n    pass", ["if not a:\n    pass"]),
        ("raise E", ["pass"]),
        ("x = 4", ["x = 5"]),
        ("x = True", ["x = False"]),
        ("x = a + b", ["x = a - b"]),
        ("x: Literal[3] = y", []),
        ("def f(a: Literal[3]) -> Literal[4]:\n    return a", []),
    ],
)
def test_faults(source: str, expected: list[str]) -> None:
    assert made(source) == expected


def test_a_line_that_no_test_needs_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TOP", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "vscsihba").mkdir()
    (tmp_path / "vscsihba" / "half_tested.py").write_text(
        "def f(a):\n    return a < 3\n\n\ndef g(a):\n    return a < 3\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import importlib.util, sys\n"
        "from vscsihba.half_tested import f\n\n"
        "def test_it():\n    assert f(2) and not f(3)\n"
    )
    trial = runner.Trial(Target("vscsihba/half_tested.py", ("test_it.py",)))
    verdicts = [trial.run(mutant) for mutant in mutants(trial.source)]
    assert [(verdict.line, verdict.noticed) for verdict in verdicts] == [
        (2, True),
        (2, True),
        (6, False),
        (6, False),
    ]


def test_what_is_called_harmless_is_a_fault_that_there_is() -> None:
    for each in HARMLESS:
        source = (runner.TOP / each.path).read_text(encoding="utf-8")
        lines = source.splitlines()
        found = {(lines[mutant.line - 1].strip(), mutant.what) for mutant in mutants(source)}
        assert (each.code, each.what) in found, each


def test_the_table_names_modules_and_tests_that_exist() -> None:
    for target in TARGETS:
        assert (runner.TOP / target.path).is_file(), target.path
        for test in target.tests:
            assert not test.startswith("tests/") or (runner.TOP / test).exists(), test
