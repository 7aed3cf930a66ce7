"""The manual pages: man(1) reads each without a warning, and everything that there is stands in them."""

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from publish.manual.__main__ import write
from publish.manual.markdown import sections
from publish.manual.markdown import write as write_markdown
from publish.manual.pages import GROUPS, TREE
from publish.manual.roff import Page, literal
from vscsihba.cli import vscsitarget
from vscsihba.cli.command_table import COMMANDS
from vscsihba.handlers.options import option_types
from vscsihba.handlers.registry import Registry

needs_man = pytest.mark.skipif(shutil.which("man") is None, reason="needs man: apt-get install man-db")


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all pages."""
    folder = tmp_path_factory.mktemp("man")
    write(folder)
    return folder


def pages(manual: Path) -> list[Path]:
    return sorted(manual.glob("man*/*"))


def man(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Read pages as a person does at 80 columns."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PAGER": "cat"}
    words = ["man", "--warnings", "-l", *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def shown(path: Path) -> str:
    """Return the text of a page without markup."""
    text = re.sub(r"\\f[BIR]|\\:|\\&", "", path.read_text())
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")


def page_of(*, text: str = "") -> Page:
    page = Page("x", "8", "a page", date="2026-01-01", source="x 1")
    page.heading("Description")
    write_markdown(page, text)
    return page


@needs_man
def test_man_reads_every_page_without_a_warning(manual: Path) -> None:
    read = man(*(path for path in pages(manual) if not path.read_text().startswith(".so")))
    assert (read.returncode, read.stderr) == (0, "")
    assert read.stdout.count("SEE ALSO") == len(GROUPS) + 4 + len(Registry().names())


@needs_man
def test_a_warning_of_man_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.8"
    bad.write_text(page_of().text() + ".nosuchmacro\n")
    assert "nosuchmacro" in man(bad).stderr


def arguments_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return every option, verb and option of a verb, but --help."""
    found: set[str] = set()
    for action in parser._actions:
        found |= {flag for flag in action.option_strings if flag not in {"-h", "--help"}}
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                found |= {verb, *arguments_of(below)}
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_on_the_page_of_its_group(manual: Path, name: str) -> None:
    page, section = GROUPS[COMMANDS[name].group]
    text = shown(manual / f"man{section}/{page}.{section}")
    part = text.partition(f'.SS "vscsihba {name}"')[2].partition(".SS ")[0].partition(".SH ")[0]
    wanted = arguments_of(COMMANDS[name].load().parser())
    assert {word for word in wanted if re.search(rf"(?m)(^|[ ,]){re.escape(word)}\b", part)} == wanted


def test_every_option_of_vscsitarget_is_on_its_page(manual: Path) -> None:
    text = shown(manual / "man8/vscsitarget.8").partition('.SH "OPTIONS"')[2].partition(".SH ")[0]
    assert {word for word in arguments_of(vscsitarget.parser()) if word not in text} == set()


@pytest.mark.parametrize("name", Registry().names())
def test_every_option_of_a_handler_is_on_its_page(manual: Path, name: str) -> None:
    text = shown(manual / f"man7/vscsihba-handler-{name}.7")
    options = text.partition('.SH "OPTIONS"')[2].partition(".SH ")[0]
    tags = set(re.findall(r"\.TP\n(\S+)", options))
    assert tags == set(option_types(Registry().get(name).Options))


def test_every_key_of_the_document_is_on_its_page(manual: Path) -> None:
    text = shown(manual / "man5/vscsihba.json.5")
    keys = set(re.findall(r"^\| `(\w+)` \|", (TREE / "docs/config.md").read_text(), re.MULTILINE))
    assert {"backstores", "wwn", "password_file"} <= keys
    assert {key for key in keys if f"\n{key}\n" not in text} == set()


def test_every_command_has_a_page_of_its_name(manual: Path) -> None:
    names = {path.name.rpartition(".")[0] for path in pages(manual)}
    assert {f"vscsihba-{name}" for name in COMMANDS} <= names


def test_every_other_name_of_a_page_leads_to_one(manual: Path) -> None:
    for path in pages(manual):
        text = path.read_text()
        if text.startswith(".so "):
            assert (manual / text.split()[1]).is_file(), path


def test_every_page_that_is_referred_to_is_there(manual: Path) -> None:
    names = {path.name for path in pages(manual)}
    for path in pages(manual):
        for name, section in re.findall(r"(vscsi[a-z.-]+)\((\d)\)", shown(path)):
            assert f"{name}.{section}" in names, path


def test_every_environment_variable_is_on_the_page_of_the_program(manual: Path) -> None:
    text = shown(manual / "man8/vscsihba.8").partition('.SH "ENVIRONMENT"')[2].partition(".SH ")[0]
    sources = [file for top in ("vscsihba", "handlers", "configfs") for file in (TREE / top).rglob("*.py")]
    read = {name for path in sources for name in re.findall(r'"(VSCSIHBA_[A-Z_]+)"', path.read_text())}
    assert {"VSCSIHBA_POLL", "VSCSIHBA_NODE_TIMEOUT"} <= read
    assert {name for name in read if name not in text} == set()


@needs_man
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (".profile and 'quotes' at the beginning", ".profile and 'quotes' at the beginning"),
        ("a `back\\slash` and --two-dashes", "a back\\slash and --two-dashes"),
        ("- one\n- two", "•  one\n\n       •  two"),
        ("| a | does |\n|---|---|\n| `x` | it |", "x      it"),
        ("| a | b | c |\n|---|---|---|\n| `x` | 1 | 2 |", "x      b: 1\n              c: 2"),
        ("```\n.dot at the start\n```", "  .dot at the start"),
        ("see [the page](other.md) and [us](https://x.example/)", "see the page and us <https://x.example/>"),
        ("<!-- note -->\nseen", "seen"),
        ("1. first\n2. second", "1. first\n\n       2. second"),
        ("a µ and an é", "a µ and an é"),
    ],
)
def test_markdown_is_read_as_meant(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "x.8"
    path.write_text(page_of(text=text).text())
    read = man(path)
    assert read.stderr == ""
    assert f"\n       {wanted}\n" in re.sub(r".\x08", "", read.stdout)


def test_an_example_that_is_too_wide_is_shown_otherwise() -> None:
    wide = "command --option   # what it does, in a comment that makes the line wider than a page is\n"
    text = page_of(text=f"```\n{wide}```\n").text()
    assert ".TP\n\\fBcommand \\-\\-option\\fR\nwhat it does" in text
    document = '{"handler": "file", "path": "/srv/a/rather/long/path/to/the/file/of/the/disk.img"}'
    assert "\n  \\(dq" not in page_of(text=f"```json\n{document}\n```").text()
    assert page_of(text=f"```json\n{document}\n```").text().count('\n  "') == 2


def test_long_words_may_be_broken() -> None:
    assert (
        literal("/srv/a/very/long/path/of/a/file")
        == "/\\:srv/\\:a/\\:very/\\:long/\\:path/\\:of/\\:a/\\:file"
    )
    assert literal("short/word") == "short/word"


def test_sections_are_those_outside_of_examples() -> None:
    found = sections("# Title\nintro\n## One\ntext\n```\n## no heading\n```\n## Two\n")
    assert list(found) == ["", "One", "Two"]
    assert "## no heading" in found["One"]
