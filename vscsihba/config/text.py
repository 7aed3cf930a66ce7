"""Parsing of untrusted JSON text: comments, repeated keys, deep nesting, invalid numbers and strings.

The result is plain: objects with unique keys, lists, valid Unicode, finite numbers. Knows nothing of the
meaning of keys.
"""

import json
import math
import re

from vscsihba.errors import ConfigError

_COMMENT = re.compile(r"^[ \t]*//.*$", re.MULTILINE)
_DEEPEST = 64
"""Most levels of nesting; every stack of layers has far fewer."""
_UNPRINTABLE = re.compile(r"[\0\ud800-\udfff]")


_LAST_COMMA = re.compile(r",\s*[]}]")
"""A comma before the end of a list or an object; may also match within a text."""


class _Repeated(dict[str, object]):
    """An object in which `key` is repeated; its place is not known yet."""

    key: str


def decode(data: bytes) -> object:
    """Return the value of a JSON text in which lines that begin with ``//`` are comments.

    Raises:
        ConfigError: It is not valid; the place is a line and a column, or the path of a value.
    """
    text = _COMMENT.sub("", _unicode(data))
    try:
        value: object = json.loads(text, object_pairs_hook=_object, parse_constant=float)
    except json.JSONDecodeError as error:
        raise _not_json(text, error) from error
    except RecursionError as error:
        raise _too_deep("$") from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError("$", "a number is out of range", cure="use a smaller one") from error
    _check(value, "$", 0)
    return value


def _unicode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(
            f"line {line}, column {column}", "this is not UTF-8", cure="save the document as UTF-8"
        ) from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) == len(pairs):
        return unique
    seen: set[str] = set()
    repeated = _Repeated(unique)
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
        seen.add(key)
    return repeated


def _not_json(text: str, error: json.JSONDecodeError) -> ConfigError:
    """Return the error for a syntax error, with its place and the most likely cure."""
    # Python 3.13 points at a comma before an end, earlier versions behind it.
    commas = _LAST_COMMA.finditer(text)
    comma = next((each.start() for each in commas if each.start() <= error.pos < each.end()), None)
    if comma is not None:
        before = text[:comma]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = "this is not JSON: a comma stands before the end of a list or object"
        return ConfigError(f"line {line}, column {column}", message, cure="remove it")
    where = f"line {error.lineno}, column {error.colno}"
    return ConfigError(where, f"this is not JSON: {error.msg}", cure=_cure(text, error))


def _cure(text: str, error: json.JSONDecodeError) -> str:
    """Return the most likely cure of a syntax error."""
    if not text.strip():
        return 'it is empty; the least is {"version": 1}'
    after = text[error.pos :].lstrip()
    if after[:1] == "'":
        return 'write text in double quotes: "..."'
    if after[:2] == "//":
        return "a comment needs a line of its own"
    return "look there, and at the end of the line before"


def _check(value: object, place: str, depth: int) -> None:
    """Refuse values that JSON allows and no document may have.

    Raises:
        ConfigError: A key is repeated, the nesting too deep, or a text not valid Unicode.
    """
    if depth > _DEEPEST:
        raise _too_deep(place)
    if isinstance(value, _Repeated):
        key = value.key if value.key.isprintable() else ascii(value.key)
        raise ConfigError(f"{place}.{key}", "this key appears twice", cure="remove one")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not key.isprintable():
                raise ConfigError(f"{place}.{key!a}", "this key is not valid Unicode", cure="remove it")
            _check(inner, f"{place}.{key}", depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check(inner, f"{place}[{number}]", depth + 1)
    elif isinstance(value, str) and _UNPRINTABLE.search(value):
        raise ConfigError(place, f"{value!a} has invalid characters", cure="remove them")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(place, f"{value} is not a finite number", cure="use another one")


def _too_deep(place: str) -> ConfigError:
    return ConfigError(place, f"nested more than {_DEEPEST} deep", cure="no disk has that many layers")
