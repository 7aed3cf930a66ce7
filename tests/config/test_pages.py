"""The page about documents and its example agree with the program."""

import json
import re
from pathlib import Path

import pytest

from tests.config.pages import PAGE, with_tables
from tests.config.test_load import BASE
from tests.config.test_schema import agrees
from vscsihba.config.load import load, parse, warnings
from vscsihba.config.text import decode

EXAMPLE = PAGE.parents[1] / "examples" / "disks.json"
TEXT = PAGE.read_text()


def test_tables_agree_with_the_model() -> None:
    assert with_tables(TEXT) == TEXT, "run: python -m tests.config.pages"


@pytest.mark.parametrize("text", re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))
def test_documents_on_the_page_are_valid(text: str) -> None:
    assert agrees(json.loads(text))
    assert not parse(text.encode(), BASE).empty


def test_example_are_valid() -> None:
    document = load(EXAMPLE)
    assert warnings(document) == []
    assert agrees(decode(EXAMPLE.read_bytes()))
    assert {stack["handler"] for stack in document.backstores.values()} == {
        "file",
        "cow",
        "encrypt",
        "memory",
    }


def test_example_names_only_what_the_machine_has_for_everybody() -> None:
    paths = re.findall(r'"(/[^"]*)"', EXAMPLE.read_text())
    assert {Path(path).parts[1] for path in paths} == {"srv", "etc"}


def test_every_link_of_the_page_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
