"""The counts of functions and files of one command stay below a ceiling; ARCHITECTURE.md names them."""

import re
from pathlib import Path

import pytest

from tests.bench.hops import PATHS, Hops, measure

SLACK = 2
"""Functions: whether the pump polls or sleeps depends on the machine."""

PAGE = Path(__file__).parents[2] / "ARCHITECTURE.md"


@pytest.fixture(scope="module")
def hops() -> dict[str, Hops]:
    return measure()


@pytest.mark.parametrize("name", PATHS)
def test_functions_and_files_stay_below_the_ceiling_of_the_page(hops: dict[str, Hops], name: str) -> None:
    row = re.search(rf"^\| {re.escape(name)} \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    assert row is not None, f"ARCHITECTURE.md has no row for {name}"
    functions, files = map(int, row.groups())
    assert len(hops[name].functions) <= functions + SLACK, "\n".join(hops[name].functions)
    assert len(hops[name].files) <= files, sorted(hops[name].files)


def test_the_fast_path_is_shorter_than_the_slow_path(hops: dict[str, Hops]) -> None:
    assert len(hops["READ(10) fast path"].functions) < len(hops["READ(10) on a thread"].functions) / 2
