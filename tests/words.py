"""A check of the lint step: docstrings with no noun for a subject.

A summary such as "What a unit keeps" makes the reader guess the noun; "State that a unit keeps" does
not. A docstring counts as unclear if its first three words have a word such as `what` or `who` among them.
So does an entry under Attributes, Args or Returns that begins with one.

    python -m tests.words [FOLDER ...]     list them

With no folder named, the whole tree is held against `CEILING`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

CEILING: Final = 6
"""Unclear docstrings and entries in the whole tree; lower it when you have mended some."""

FOLDERS: Final = ("vscsihba", "handlers", "configfs", "tests", "vagrant", "examples")
_UNCLEAR: Final = re.compile(r"\b(what|whatever|who|whoever|whom|whose)\b", re.IGNORECASE)
_ENTRY: Final = re.compile(r"\s+(?:\*\*?)?\w+: (.*)")
_SUMMARY_WORDS: Final = 3
_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Unclear(NamedTuple):
    """A sentence that should begin with a noun or a verb.

    Attributes:
        path: The file.
        line: Its line there.
        text: The sentence, or its first line.
    """

    path: Path
    line: int
    text: str


def unclear_summary(summary: str) -> bool:
    """Return whether the first words of a summary have `what`, `who` or the like among them."""
    return bool(_UNCLEAR.search(" ".join(summary.split()[:_SUMMARY_WORDS])))


def unclear_entry(line: str) -> bool:
    """Return whether a line of a docstring describes an attribute by `what`, `who` or the like."""
    entry = _ENTRY.fullmatch(line)
    return bool(entry and _UNCLEAR.match(entry[1]))


def unclear_in(path: Path) -> Iterator[Unclear]:
    """Yield the unclear docstrings and entries of one file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, _DOCUMENTED) or ast.get_docstring(node) is None:
            continue
        literal = node.body[0]
        assert isinstance(literal, ast.Expr)
        lines = (ast.get_docstring(node, clean=False) or "").splitlines()
        summary = " ".join(lines).strip()
        if unclear_summary(summary):
            yield Unclear(path, literal.lineno, lines[0].strip())
        for number, line in enumerate(lines[1:], literal.lineno + 1):
            if unclear_entry(line):
                yield Unclear(path, number, line.strip())


def unclear_below(folders: list[Path]) -> Iterator[Unclear]:
    """Yield those of all Python files below some folders; links to folders are not followed."""
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
        for path in files:
            yield from unclear_in(path)


def main(arguments: list[str]) -> int:
    """List the unclear docstrings of some folders, or hold the whole tree against the ceiling."""
    found = list(unclear_below([Path(name) for name in arguments or FOLDERS]))
    if arguments or len(found) > CEILING:
        for one in found:
            print(f"{one.path}:{one.line}: {one.text}")
    if not arguments and len(found) > CEILING:
        print(f"{len(found)} docstrings begin with what or who, and {CEILING} are allowed: name the thing")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
