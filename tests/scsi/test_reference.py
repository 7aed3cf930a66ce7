"""The page docs/supported-scsi.md."""

from pathlib import Path

from tests.scsi.reference import reference
from vscsihba.scsi.opcodes import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "supported-scsi.md"


def test_reference_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "run python -m tests.scsi.reference > docs/supported-scsi.md"


def test_reference_names_every_command() -> None:
    assert all(f"| {row.name} |" in reference() for row in TABLE.values())
