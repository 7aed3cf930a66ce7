"""Every stack of the benchmark can be measured: one round of one command each."""

from pathlib import Path

import pytest

from tests.bench.stacks.measure import STACKS, measure
from tests.bench.stacks.stack import Stack


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_each_case_is_measured(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = list(measure(stack, depth=1, rounds=2))
    assert [row.command for row in rows] == [case.name for case in stack.cases]
    assert all(row.microseconds > 0 and row.bare > 0 and row.ratio > 0 for row in rows)
    assert not list(tmp_path.iterdir())
