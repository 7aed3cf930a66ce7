"""The table of docs/ring-rules.md, compared with the tests that carry the number of a rule."""

import re
from collections import defaultdict
from pathlib import Path

TOP = Path(__file__).parents[2]
TABLE = TOP / "docs" / "ring-rules.md"


def documented() -> dict[int, set[str]]:
    """Return the test files that the table names, by rule."""
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", TABLE.read_text(), re.MULTILINE)
    assert len(rows) == len({number for number, _ in rows}), "a rule stands in the table twice"
    return {int(number): set(files.split()) for number, files in rows}


def numbered_tests() -> dict[int, set[str]]:
    """Return the files with tests that carry the number of a rule, by rule."""
    files = defaultdict(set)
    for path in (TOP / "tests").rglob("test_*.py"):
        for number in re.findall(r"^def test_rule_(\d+)_", path.read_text(), re.MULTILINE):
            files[int(number)].add(str(path.relative_to(TOP)))
    return dict(files)


def test_every_rule_has_a_test_and_every_numbered_test_its_rule() -> None:
    assert numbered_tests() == documented()


def test_rules_are_numbered_without_a_gap() -> None:
    assert sorted(documented()) == list(range(1, len(documented()) + 1))
    assert len(documented()) >= 17
