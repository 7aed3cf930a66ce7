"""Mutants have one fault each, and the runner tells the noticed from the survivors."""

import ast
from pathlib import Path

import pytest

import vscsihba
from tests.mutation import results, runner, session
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


MODULE = """\
LIMIT = 3

def f(a):
    return a < LIMIT

def g(a):
    return a < 3

def h(queue):
    queue.append(1)

class C:
    last: int = 4

def unused():
    return 5

ODD = tuple(1 + 2 * n for n in range(3))
"""
TESTS = """\
import os
from hypothesis import given, settings, strategies as st
from vscsihba.half_tested import C, ODD, f, g, h

def test_f():
    assert f(2) and not f(3)

def test_g():
    assert g(2)

def test_h():
    queue = []
    h(queue)
    while not queue:
        pass

def test_c():
    assert C.last == 4
    assert ODD == (1, 3, 5)

@settings(max_examples=9999)
@given(st.integers())
def test_few_examples(number):
    with open(os.environ["EXAMPLES"], "a") as out:
        out.write(f"{number} ")
"""


def test_a_fault_that_no_test_notices_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TOP", tmp_path)
    monkeypatch.setattr(session, "limit", lambda seconds: 3.0)
    monkeypatch.setenv("EXAMPLES", str(tmp_path / "examples"))
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    (tmp_path / "vscsihba").mkdir()
    monkeypatch.setattr(vscsihba, "__path__", [*vscsihba.__path__, str(tmp_path / "vscsihba")])
    (tmp_path / "vscsihba" / "half_tested.py").write_text(MODULE)
    (tmp_path / "test_it.py").write_text(TESTS)
    made_at_import = ("Add -> Sub", "1 -> 2", "2 -> 3", "3 -> 4")
    verdicts = runner.tried(Target("vscsihba/half_tested.py", ("test_it.py",)), list(mutants(MODULE)))
    assert {(verdict.line, verdict.what, verdict.by) for verdict in verdicts} == {
        (1, "3 -> 4", "test_it.py::test_f"),
        (4, "Lt -> LtE", "test_it.py::test_f"),
        (7, "Lt -> LtE", ""),
        (7, "3 -> 4", ""),
        (10, "leave out 'queue.append(1)'", "time"),
        (10, "1 -> 2", ""),
        (13, "4 -> 5", "test_it.py::test_c"),
        (16, "5 -> 6", "no test executes it"),
        (18, "Mult -> FloorDiv", "import: ZeroDivisionError"),
        *((18, what, "test_it.py::test_c") for what in made_at_import),
    }
    assert len((tmp_path / "examples").read_text().split()) <= 100


def test_tests_that_fail_without_a_fault_show_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "TOP", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "vscsihba").mkdir()
    monkeypatch.setattr(vscsihba, "__path__", [*vscsihba.__path__, str(tmp_path / "vscsihba")])
    (tmp_path / "vscsihba" / "failing.py").write_text(MODULE)
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert False\n")
    with pytest.raises(runner.UntestableError, match=r"fail: test_it\.py::test_it"):
        list(runner.tried(Target("vscsihba/failing.py", ("test_it.py",)), list(mutants(MODULE))))


def test_verdicts_follow_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_EVERY", tmp_path)
    target = Target("vscsihba/some.py", ())
    (before, *_) = mutants("x = a < b")
    results.keep(target, [runner.Verdict(1, before.code, before.what, 0, True, "test", 0.5)])
    moved = list(mutants("y = c < d\nx = a < b"))
    assert results.kept(target, moved) == [runner.Verdict(2, "x = a < b", "Lt -> LtE", 0, True, "test", 0.5)]


def test_a_page_counts_harmless_faults_apart() -> None:
    each = HARMLESS[0]
    (target,) = [target for target in TARGETS if target.path == each.path]
    harmless = runner.Verdict(3, each.code, each.what, 0, False, "", 1.0)
    other = runner.Verdict(4, "x = a < b", "Lt -> LtE", 0, False, "", 1.0)
    page = results.page([(target, results.Summary(50, 12, 1, (harmless, other)))])
    assert f"| `{target.path}` | 50 | 12 | 10 | 1 | 83 % | 91 % |" in page
    assert f"Harmless: {each.why}" in page
    assert "* line 4, `x = a < b`: Lt -> LtE\n" in page


def test_what_is_called_harmless_is_a_fault_that_there_is() -> None:
    for path in {each.path for each in HARMLESS}:
        source = (runner.TOP / path).read_text(encoding="utf-8")
        exist = {(mutant.code, mutant.what) for mutant in mutants(source)}
        named = {(each.code, each.what) for each in HARMLESS if each.path == path}
        assert named <= exist, (path, named - exist)


def test_the_table_names_modules_and_tests_that_exist() -> None:
    for target in TARGETS:
        assert (runner.TOP / target.path).is_file(), target.path
        for test in target.tests:
            assert not test.startswith("tests/") or (runner.TOP / test).exists(), test
