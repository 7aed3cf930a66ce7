"""Stacks in one line, for command lines: layers from the top down, with ``|`` between them.

    /srv/disk.img                                   a plain path, as ever
    readonly|/srv/disk.img                          a filter without options
    cow:/srv/over.cow;create=true|/srv/base.img     options, the first one without its name
    memory:size=1GiB

    {"handler": "mirror", "path": "/srv/m", "legs": ["/srv/a.img", "/srv/b.img"]}       a document

A text is taken for a path unless it begins with the name of a handler and ``:`` or ``|``, or with
``{``; a file that is really called ``file:x`` is ``./file:x``. What sits on several legs needs a document.

Several disks have commas between them. A comma that is part of an option's JSON, as in
``log:verbs=["read","write"]|/a.img``, is none of these.
"""

import json
import re

from vscsihba.errors import UsageError
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.options import option_types
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_BEGINNING = re.compile(r"([a-z][a-z0-9_-]*|[^|:]*\.py)[:|]")
_OPTION = re.compile(r"([a-z][a-z0-9_]*)=(.*)", re.DOTALL)


def parse(text: str, registry: Registry | None = None) -> Document:
    """Return the document that `text` stands for.

    Args:
        text: A path, or layers.
        registry: Where handlers come from; the built-in and installed ones by default.

    Raises:
        UsageError: It cannot be meant.
    """
    registry = registry or Registry()
    if text.startswith("{"):
        return _document(text)
    if not _is_stack(text, registry):
        return _path(text, text)
    document: Document | None = None
    for layer in reversed(text.split("|")):
        document = _layer(layer, document, registry, text)
    assert document is not None  # noqa: S101  # a text has at least one part
    return document


def split(text: str, registry: Registry | None = None) -> list[str]:
    """Return the parts of a list of paths and layers, as `parse` takes them; some may be empty.

    Args:
        text: With commas between the parts.
        registry: As for `parse`.
    """
    registry = registry or Registry()
    parts: list[str] = []
    while True:
        end = _end_of_json(text, 0) if text.startswith("{") else 0
        if not end:
            layered = _is_stack(text.partition(",")[0], registry)
            end = _end_of_stack(text) if layered else text.find(",")
        if not 0 <= end < len(text):
            return [*parts, text]
        parts.append(text[:end])
        text = text[end + 1 :]


def _document(text: str) -> Document:
    try:
        document: Document = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not JSON: {error}", cure='a file of such a name is "./{..."'
        ) from error
    return document


def _is_stack(text: str, registry: Registry) -> bool:
    """Tell layers from a path."""
    name = _BEGINNING.match(text)
    return name is not None and _is_handler(name[1], registry)


def _end_of_stack(text: str) -> int:
    """Return where the layers that `text` begins with end: at a comma outside of JSON, or at its end."""
    at = 0
    while at < len(text) and text[at] != ",":
        at += 1
        if text[at - 1] in "=:" and text[at : at + 1] in ("[", "{", '"'):
            at = _end_of_json(text, at)
    return at


def _end_of_json(text: str, start: int) -> int:
    """Return where the JSON that begins at `start` ends; `start` if what is there is something else."""
    try:
        return json.JSONDecoder().raw_decode(text, start)[1]
    except ValueError:
        return start


def _path(text: str, whole: str) -> str:
    """Return a path as it is; refuse a URL that lacks its handler."""
    if _URL.match(text):
        raise UsageError(
            f"{whole!r}: {text} is a URL, not a path",
            cure="write its handler before it, as in http:https://...",
        )
    return text


def _layer(text: str, below: Document | None, registry: Registry, whole: str) -> Document:
    """Return the document of one layer on what is below it."""
    name, colon, rest = text.partition(":")
    if below is None and not (colon and _is_handler(name, registry)):
        return _path(text, whole)
    kind = registry.get(name)
    if issubclass(kind, Fan):
        raise UsageError(f"{whole!r}: {name} sits on several legs", cure="describe it in a document")
    document = {"handler": name, **_options(rest, option_types(kind.Options), whole)}
    if issubclass(kind, Filter):
        if below is None:
            raise UsageError(f"{whole!r}: {name} is a filter", cure=f"say what it sits on: {text}|/path")
        document["next"] = below
    elif below is not None:
        raise UsageError(f"{whole!r}: {name} is not a filter", cure="put it last")
    return document


def _options(text: str, types: dict[str, bool], whole: str) -> dict[str, object]:
    """Return the options in a text such as ``/srv/over.cow;create=true``.

    Values are JSON, but for options that are text.
    """
    options: dict[str, object] = {}
    for number, part in enumerate(text.split(";") if text else ()):
        option = _OPTION.fullmatch(part)
        if option is not None and (option[1] in types or number > 0):
            options[option[1]] = option[2] if types.get(option[1]) else _value(option[2])
        elif number == 0 and types:
            # It may have an equals sign of its own, as a path may.
            options[next(iter(types))] = part if types[next(iter(types))] else _value(part)
        else:
            raise UsageError(f"{whole!r}: {part!r} is not of the form option=value")
    return options


def _is_handler(name: str, registry: Registry) -> bool:
    return name.endswith(".py") or name in registry.names()


def _value(text: str) -> object:
    """Return the JSON value of a text, or the text if that is not JSON, such as ``1GiB``."""
    try:
        return json.loads(text)
    except ValueError:
        return text
