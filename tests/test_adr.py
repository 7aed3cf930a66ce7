"""Decision records: each has all parts, and the list names each with its title."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs/adr"
RECORDS = sorted(FOLDER.glob("0*.md"))
PARTS = re.compile(
    r"# (\d+)\. (.+)\n\nDate: \d{4}-\d\d-\d\d\. Status: [^\n]+\.\n"
    r"\n## Context\n.+\n## Decision\n.+\nRejected:\n\n- .+\n## Consequences\n\n.+",
    re.DOTALL,
)


def title(record: Path) -> tuple[int, str]:
    match = PARTS.fullmatch(record.read_text())
    assert match is not None, f"{record.name} lacks a part"
    return int(match[1]), match[2].splitlines()[0]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_has_all_parts_and_its_number(record: Path) -> None:
    number, _ = title(record)
    assert record.name.startswith(f"{number:04}-")


def test_the_list_names_each_record_with_its_title() -> None:
    rows = [
        f"| [{number}]({record.name}) | {text} |" for record in RECORDS for number, text in [title(record)]
    ]
    listed = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert listed == rows
