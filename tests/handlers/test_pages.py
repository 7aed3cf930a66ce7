import json

import pytest

from tests.handlers.pages import PAGES, examples, with_options
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_text import parse

NAMES = Registry().names()


@pytest.mark.parametrize("name", NAMES)
def test_every_handler_has_a_page_with_its_options(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert "<!-- options -->" in page
    assert page == with_options(name, page), "run python -m tests.handlers.pages"


@pytest.mark.parametrize("name", NAMES)
def test_every_page_says_what_a_crash_leaves(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings[0] == f"# {name}"
    for heading in ("## Options", "## Example", "## After a crash"):
        assert heading in headings


@pytest.mark.parametrize("name", NAMES)
def test_examples_can_be_meant(name: str) -> None:
    shown = examples((PAGES / f"{name}.md").read_text())
    assert shown
    for document in shown:
        build(document)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_the_help_can_be_meant(name: str) -> None:
    example = Registry().get(name).example
    document = json.loads(example) if example.startswith("{") else parse(example)
    assert isinstance(document, dict)
    assert document["handler"] == name
    build(document)


@pytest.mark.parametrize("name", NAMES)
def test_the_index_lists_every_handler(name: str) -> None:
    assert f"[{name}]({name}.md)" in (PAGES / "README.md").read_text()
