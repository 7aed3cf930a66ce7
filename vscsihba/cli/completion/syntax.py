"""The syntax of a command line as plain values, read from its parser, for completion scripts."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["file", "choice", "backstore", "anything"]

_KINDS: dict[str, Kind] = {"FILE": "file", "PATH": "file", "DIR": "file", "BACKSTORE": "backstore"}
"""Kinds of values by metavar; others are anything."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value at one place.

    Attributes:
        name: Name in the help.
        kind: Source of the possible values.
        choices: Possible values, for a "choice".
    """

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option.

    Attributes:
        flags: Its names, with their dashes.
        help: Description.
        value: Value of the option, None if it has none.
    """

    flags: tuple[str, ...]
    help: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class Syntax:
    """The syntax of a command.

    Attributes:
        summary: Purpose, in one line.
        options: In the order of the help.
        values: Positional arguments, in order.
        commands: Subcommands by name.
    """

    summary: str
    options: tuple[Option, ...] = ()
    values: tuple[Value, ...] = ()
    commands: Mapping[str, "Syntax"] = field(default_factory=dict)


def syntax_of(parser: argparse.ArgumentParser, summary: str) -> Syntax:
    """Return the syntax of a parser."""
    options, values = [], []
    commands: dict[str, Syntax] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to look into a parser
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - likewise
            commands = _below(action)
        elif action.option_strings:
            value = _value(action) if action.nargs != 0 else None
            options.append(Option(tuple(action.option_strings), action.help or "", value))
        else:
            values.append(_value(action))
    return Syntax(summary, tuple(options), tuple(values), commands)


def _below(action: "argparse._SubParsersAction[argparse.ArgumentParser]") -> dict[str, Syntax]:
    summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
    return {name: syntax_of(parser, summaries.get(name, "")) for name, parser in action.choices.items()}


def _value(action: argparse.Action) -> Value:
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.choices is not None:
        return Value(name, "choice", tuple(map(str, action.choices)))
    return Value(name, _KINDS.get(name.rstrip(".").strip("[]"), "anything"))
