"""The program ``vscsihba``: finds a command in the table, imports and runs it.

`program` turns its errors into one line and an exit code.
"""

from collections.abc import Sequence

from vscsihba import __version__
from vscsihba.cli.command_table import COMMANDS, PROGRAM
from vscsihba.cli.program import run
from vscsihba.errors import UsageError

_INTRODUCTION = f"""\
usage: {PROGRAM} COMMAND [ARGUMENT ...]

Virtual SCSI disks on Linux, served from user space.
"""

_END = f"""
  {PROGRAM} COMMAND --help shows options and examples of a command.
  {PROGRAM} --version shows the version.

Exit codes: 0 success, 1 refused by the machine, 2 wrong usage.
Every error is one line, with the remedy.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run(PROGRAM, _dispatch, arguments)


def overview() -> str:
    """Return the program's help."""
    lines = [_INTRODUCTION]
    width = max(map(len, COMMANDS)) + 2
    group = ""
    for command in COMMANDS.values():
        if command.group != group:
            group = command.group
            lines.append(f"\n{group}\n")
        lines.append(f"  {command.name:{width}}{command.summary}\n")
    return "".join([*lines, _END])


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments:
        raise UsageError("no command is given", cure=f'see "{PROGRAM} --help"')
    word, *rest = arguments
    if word in ("-h", "--help", "help"):
        return _help(rest)
    if word == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if word not in COMMANDS:
        raise _unknown(word)
    return COMMANDS[word].load().run(rest)


def _help(words: list[str]) -> int:
    if not words:
        print(overview(), end="")
        return 0
    if words[0] not in COMMANDS:
        raise _unknown(words[0])
    COMMANDS[words[0]].load().parser().print_help()
    return 0


def _unknown(word: str) -> UsageError:
    from vscsihba.handlers.options import did_you_mean  # noqa: PLC0415 - --help needs none of it

    if word.startswith("-"):
        return UsageError(f"unknown option {word!r} before the command", cure=f'see "{PROGRAM} --help"')
    return UsageError(f"unknown command {word!r}", cure=did_you_mean(word, COMMANDS))
