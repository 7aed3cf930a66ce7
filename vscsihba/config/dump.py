"""Writing documents: JSON for people, always in the same words, which `vscsihba.config.load` reads back."""

import json
from collections.abc import Iterator, Mapping

import msgspec

from vscsihba.config.model import Document

_WIDTH = 110
_INDENT = "  "


def builtins(document: Document) -> dict[str, object]:
    """Return a document as plain JSON values: what is the default is left out, names are in order."""
    return {
        "version": document.version,
        "backstores": {name: document.backstores[name] for name in sorted(document.backstores)},
        "hbas": msgspec.json.decode(msgspec.json.encode(document.hbas)),
    }


def dump(document: Document) -> str:
    """Return a document as text; whatever fits into a line of 110 characters is in one line."""
    found = builtins(document)
    # The outer levels always have a line for each entry, as people edit them.
    return "\n".join(_lines(found, _WIDTH, outer=2)) + "\n"


def _lines(value: object, width: int, *, outer: int = 0, lead: str = "", trail: str = "") -> list[str]:
    """Return the lines of a value.

    Args:
        value: What JSON has.
        width: Columns that there are.
        outer: Levels of it that are never in one line unless they are empty.
        lead: What stands before it.
        trail: What stands after it.
    """
    whole = f"{lead}{json.dumps(value, ensure_ascii=False)}{trail}"
    if not isinstance(value, dict | list) or not value or (outer <= 0 and len(whole) <= width):
        return [whole]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    entries = list(_entries(value))
    lines = [lead + opening]
    for number, (key, inner) in enumerate(entries, 1):
        comma = "," if number < len(entries) else ""
        lines += [
            _INDENT + line
            for line in _lines(inner, width - len(_INDENT), outer=outer - 1, lead=key, trail=comma)
        ]
    return [*lines, closing + trail]


def _entries(value: Mapping[str, object] | list[object]) -> Iterator[tuple[str, object]]:
    if isinstance(value, list):
        yield from (("", inner) for inner in value)
    else:
        yield from ((f"{json.dumps(key, ensure_ascii=False)}: ", inner) for key, inner in value.items())
