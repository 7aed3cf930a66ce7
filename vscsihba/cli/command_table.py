"""The table of commands: name, summary, group in the help, and module of each.

A command's module has ``parser() -> Parser``, made by `parser_of`, and ``run(arguments) -> int``;
it is imported when its command is used, so that ``vscsihba --help`` starts at once. Nothing here
imports one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from keyword import iskeyword
from types import MappingProxyType
from typing import Protocol, cast

from vscsihba.cli.program import HelpFormatter, Parser

PROGRAM = "vscsihba"


class CommandModule(Protocol):
    """The interface of a command's module."""

    def parser(self) -> Parser:
        """Return the parser of its command line."""

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command and return the exit code."""


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One command.

    Attributes:
        name: Word after ``vscsihba``.
        summary: Purpose, in one line.
        group: Heading that it stands under in the help.
    """

    name: str
    summary: str
    group: str

    def load(self) -> CommandModule:
        """Import the command's module."""
        name = f"{self.name}_" if iskeyword(self.name) else self.name.replace("-", "_")
        module = import_module(f"vscsihba.cli.commands.{name}")
        return cast("CommandModule", module)


_TABLE = {
    "disks": {
        "plan": "show the changes that apply would make",
        "apply": "apply a configuration document",
        "status": "show the state of every HBA, LUN and engine",
        "stats": "show how many commands disks have executed, and how quickly",
        "metrics": "print or serve metrics for Prometheus",
        "show": "print the running configuration as a document for apply",
        "save": "save the running configuration for the next start",
        "import": "make a configuration document of LIO's saveconfig.json",
        "resize": "enlarge a disk while it is in use",
        "path": "show the paths to disks, and make one active or standby",
        "shell": "manage disks in a tree, as in targetcli",
        "clear": "remove HBAs and their disks, including leftovers of dead processes",
    },
    "the service": {
        "daemon": "run the service in the foreground",
        "install-service": "install, start or remove the systemd unit of the service",
    },
    "commands of disks": {
        "trace": "show every SCSI command of disks in use, or write a capture for Wireshark",
        "replay": "send the commands of a capture to a device, and compare the answers",
    },
    "layers of disks": {
        "snapshot": "take, list, delete and roll back to snapshots of a disk in use",
        "mirror": "show, add and remove legs of a mirrored disk in use",
        "cow": "inspect, commit or discard a copy-on-write overlay",
        "encrypt": "create a LUKS container, manage its keys",
        "qemu": "show and check the image of QEMU behind a disk in use",
    },
    "the sandbox": {
        "sandbox": "run a command on a real kernel with virtual disks, without root",
    },
    "the machine": {
        "handlers": "list the storage handlers, with options and examples",
        "schema": "print the JSON Schema of configuration documents",
        "doctor": "check this machine, and show how to correct problems",
        "bug-report": "write an archive for a report of a fault; send nothing",
        "completion": "print the completion script for bash, zsh or fish",
    },
}

COMMANDS = MappingProxyType(
    {
        name: CommandEntry(name, summary, group)
        for group, commands in _TABLE.items()
        for name, summary in commands.items()
    }
)
"""Every command by its name, in the order of the help."""


def parser_of(
    name: str, *, usage: str, examples: str, json_help: str = "print JSON instead of text"
) -> Parser:
    """Return the parser of a command, with the options ``--help`` and ``--json`` only.

    Args:
        name: The command, as in `COMMANDS`.
        usage: Arguments, as the usage line shows them.
        examples: Lines at the end of the help.
        json_help: Effect of ``--json``.
    """
    made = Parser(
        prog=f"{PROGRAM} {name}",
        usage=f"{PROGRAM} {name} {usage}".rstrip(),
        description=_sentence(COMMANDS[name].summary),
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help=json_help)
    return made


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."
