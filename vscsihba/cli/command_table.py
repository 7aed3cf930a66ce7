"""The table of commands: what each is called, what it is for, which module has it.

A command's module has ``parser() -> Parser``, made by `parser_of`, and ``run(arguments) -> int``;
it is imported when its command is used, so that ``vscsihba --help`` starts at once. Nothing here
imports one.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Protocol, cast

from vscsihba.cli.program import Parser

PROGRAM = "vscsihba"


class CommandModule(Protocol):
    """What the module of a command has."""

    def parser(self) -> Parser:
        """Return the parser of its command line."""

    def run(self, arguments: Sequence[str]) -> int:
        """Do it and return the exit code."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: What a person types after ``vscsihba``.
        summary: What it does, in one line.
        group: Heading that it stands under in the help.
    """

    name: str
    summary: str
    group: str

    def load(self) -> CommandModule:
        """Import the command's module."""
        module = import_module(f"vscsihba.cli.commands.{self.name.replace('-', '_')}")
        return cast("CommandModule", module)


_TABLE = {
    "disks": {
        "plan": "show what apply would change",
        "apply": "make what runs what a document says",
        "status": "show every HBA, LUN and engine, and how it is",
        "show": "print what runs as a document that apply accepts",
        "save": "keep what runs for the next start",
        "resize": "enlarge a disk while it works",
        "shell": "work on disks as on a tree, in the manner of targetcli",
        "clear": "take away HBAs with their disks, also what somebody who died has left",
    },
    "the service": {
        "daemon": "be the service, in the foreground",
        "install-service": "have systemd run the service, or no longer",
    },
    "layers of disks": {
        "snapshot": "take, list and delete snapshots of a disk in use; roll back to one",
        "mirror": "watch, add and remove the legs of a mirrored disk in use",
        "cow": "look at an overlay, commit it into its base, discard it",
        "encrypt": "make a LUKS container, change its keys",
    },
    "the sandbox": {
        "sandbox": "run a command on a real kernel with virtual disks, without root",
    },
    "the machine": {
        "handlers": "list what disks can be made of, with options and examples",
        "schema": "print the JSON Schema of the document",
        "doctor": "check this machine: each line is fine, or says what to do",
        "completion": "print a script that teaches a shell the words of every command",
    },
}

COMMANDS = MappingProxyType(
    {
        name: Command(name, summary, group)
        for group, commands in _TABLE.items()
        for name, summary in commands.items()
    }
)
"""Every command by its name, in the order of the help."""


def parser_of(name: str, *, usage: str, examples: str) -> Parser:
    """Return the parser of a command, with nothing but ``--help`` and ``--json`` in it yet.

    Args:
        name: The command, as in `COMMANDS`.
        usage: Its words after its name.
        examples: Lines to show at the end of its help.
    """
    made = Parser(
        prog=f"{PROGRAM} {name}",
        usage=f"{PROGRAM} {name} {usage}".rstrip(),
        description=_sentence(COMMANDS[name].summary),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of text")
    return made


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."
