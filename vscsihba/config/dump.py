"""Writing documents: JSON in one canonical, readable form, which `vscsihba.config.load` reads back."""

import json
from collections.abc import Iterator, Mapping

import msgspec

from vscsihba.config.model import Document

_WIDTH = 110
_INDENT = "  "


def builtins(document: Document) -> dict[str, object]:
    """Return a document as plain JSON values, without defaults and ordered by name."""
    exports = msgspec.json.decode(msgspec.json.encode(document.exports))
    return {
        "version": document.version,
        "backstores": {name: document.backstores[name] for name in sorted(document.backstores)},
        "hbas": msgspec.json.decode(msgspec.json.encode(document.hbas)),
        **({"exports": exports} if exports else {}),
    }


def dump(document: Document) -> str:
    """Return a document as text; a value that fits into 110 characters takes one line."""
    value = builtins(document)
    # The outer levels always have a line for each entry, so that they are easy to edit.
    return "\n".join(_lines(value, _WIDTH, outer=2)) + "\n"


def _lines(value: object, width: int, *, outer: int = 0, lead: str = "", trail: str = "") -> list[str]:
    """Return the lines of a value.

    Args:
        value: A JSON value.
        width: Available columns.
        outer: Number of levels that are never in one line unless they are empty.
        lead: Text before the value.
        trail: Text after the value.
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
