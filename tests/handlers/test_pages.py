import json

import pytest

from tests.handlers.pages import PAGES, examples, with_options
from vscsihba.handlers.file import inline
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.sg import timeouts
from vscsihba.handlers.sg.cdb import CD
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


def test_numbers_that_pages_repeat_are_those_of_the_code() -> None:
    assert f"A write of up to {inline.WRITE_LIMIT >> 20} MiB is" in (PAGES / "file.md").read_text()
    page = (PAGES / "sg.md").read_text()
    read_10, write_10 = bytes([0x28, *bytes(9)]), bytes([0x2A, *bytes(9)])
    assert f"a tape {timeouts.timeout_of(read_10, timeouts.TAPE, 1):,.0f} s" in page
    assert f"a changer {timeouts.timeout_of(read_10, timeouts.CHANGER, 1):,.0f} s" in page
    assert f"flushes {timeouts.timeout_of(write_10, CD, 1):,.0f} s" in page.replace("\n", " ")
