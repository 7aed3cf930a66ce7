"""The pages of the site: all of docs/ is in its navigation, and every link leads to a page and a heading.

`./dev docs` builds the site, strictly; here are the checks that need no mkdocs.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publish.dist import TREE
from publish.site.pages import API, navigation, pages, stage


def places(entry: Any) -> Iterator[str]:
    """Yield every page of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from places(each)


def text_of(path: Path) -> str:
    """Return a page without its examples."""
    return re.sub(r"(?ms)^ *```.*?^ *```|`[^`\n]+`", "", path.read_text())


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text())
    headings = re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


def test_every_page_is_in_the_navigation_once() -> None:
    shown = list(places(navigation()))
    assert len(shown) == len(set(shown))
    assert set(shown) == {*pages(), *(f"api/{name}.md" for name in API)}


@pytest.mark.parametrize("name", pages())
def test_every_link_leads_somewhere(name: str) -> None:
    page = TREE / name
    for target, anchor in re.findall(r"\]\(([^)\s#:]*)(#[^)\s]+)?\)", text_of(page)):
        path = page.parent / target if target else page
        assert path.exists(), f"{name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor[1:] in anchors(path), f"{name}: {target}{anchor}"


def test_links_to_code_become_links_to_the_repository(tmp_path: Path) -> None:
    stage(tmp_path, "https://example.org/us")
    text = (tmp_path / "README.md").read_text()
    assert "(https://example.org/us/blob/main/examples/disks.json)" in text
    assert "(docs/handlers/README.md)" in text
    assert (tmp_path / "docs/bench/cpu.png").exists()


@pytest.mark.parametrize("name", API)
def test_every_module_of_the_reference_can_be_imported(name: str) -> None:
    assert importlib.import_module(API[name][0]).__doc__
