"""``vscsihba handlers``: lists the storage handlers, with the options of each.

The texts come from the declarations of the handlers. It opens nothing.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.disk_args import registry_of
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.option_help import describe
from vscsihba.handlers.registry import Registry

_EXAMPLES: Final = """\
  vscsihba handlers                           list all handlers
  vscsihba handlers cow                       show the options of the handler cow
  vscsihba handlers --handler ./clock.py      also list handlers from a file
"""

_KINDS: Final = ("source", "fan", "filter")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list.

    Attributes:
        name: Name in documents.
        kind: ``source`` (stores the bytes), ``filter`` (sits on one) or ``fan`` (sits on several).
        summary: Description in one line.
        example: Stack that uses it; empty if the handler declares none.
    """

    name: str
    kind: Literal["source", "filter", "fan"]
    summary: str
    example: str


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("handlers", usage="[NAME] [--handler FILE.py] [--json]", examples=_EXAMPLES)
    made.add_argument("name", metavar="NAME", nargs="?", help="show the options of this handler")
    made.take_handlers()
    return made


def run(arguments: Sequence[str]) -> int:
    """List all handlers, or show one."""
    options = parser().parse_args(arguments)
    registry = registry_of(options.handler)
    if options.name is None:
        _list(registry, as_json=options.json)
    else:
        _show(registry.get(options.name), as_json=options.json)
    return 0


def _list(registry: Registry, *, as_json: bool) -> None:
    entries, broken = [], []
    for name in registry.names():
        try:
            entries.append(_entry(registry.get(name)))
        except HostError as error:  # a broken package hides none of the others
            broken.append({"name": name, "error": str(error)})
    if as_json:
        print_json([*map(asdict, entries), *broken])
        return
    entries.sort(key=lambda entry: _KINDS.index(entry.kind))
    rows: list[tuple[str, str, str]] = [(entry.name, entry.kind, entry.summary) for entry in entries]
    rows += [(each["name"], "BROKEN", each["error"]) for each in broken]
    print_table(rows, ("handler", "kind", "description"))


def _show(kind: type[Handler], *, as_json: bool) -> None:
    entry, options = _entry(kind), describe(kind.Options)
    if as_json:
        shown = [
            {**asdict(option), "default": None if option.required else json.loads(option.default)}
            for option in options
        ]
        print_json({**asdict(entry), "options": shown})
        return
    print(f"{entry.name}, a {entry.kind}: {entry.summary}")
    if entry.example:
        print(f"\nexample: {entry.example}")
    print("\noptions:" if options else "\nno options")
    for option in options:
        default = "required" if option.required else f"default {option.default}"
        print(f"  {option.name}: {option.type}; {default}")
        print(textwrap.indent(textwrap.fill(option.description, 100), "      "))


def _entry(kind: type[Handler]) -> Entry:
    if issubclass(kind, Fan):
        where: Literal["source", "filter", "fan"] = "fan"
    else:
        where = "filter" if issubclass(kind, Filter) else "source"
    summary = (kind.__doc__ or "").strip().partition("\n")[0]
    return Entry(kind.name, where, summary.removesuffix("."), kind.example)
