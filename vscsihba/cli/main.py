"""The program ``vscsihba``: finds the command that was asked for, and runs it.

Knows the table of commands, and imports the one that is used. What goes wrong in it becomes
one line and an exit code in `program`.
"""

from collections.abc import Sequence

from vscsihba.cli.command_table import COMMANDS, PROGRAM
from vscsihba.cli.program import run
from vscsihba.errors import UsageError

_INTRODUCTION = f"""\
usage: {PROGRAM} COMMAND [ARGUMENT ...]

Virtual SCSI disks on Linux, served from user space.
"""

_END = f"""
  {PROGRAM} COMMAND --help shows the words of a command, with examples.
  {PROGRAM} --version shows the version.

Exit codes: 0 done, 1 the machine refused, 2 wrong usage; every error is one line that says what to do.
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
        from importlib.metadata import version  # noqa: PLC0415 - slow, and seldom wanted

        print(f"{PROGRAM} {version(PROGRAM)}")
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
        return UsageError(f"there is no option {word!r} before the command", cure=f'see "{PROGRAM} --help"')
    return UsageError(f"there is no command {word!r}", cure=did_you_mean(word, COMMANDS))
