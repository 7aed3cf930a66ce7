"""``vscsihba completion``: prints the completion script of a shell.

The scripts are made from the commands' own parsers. For names of backstores, they
call ``vscsihba completion --backstores``.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Final

from vscsihba.cli.command_table import COMMANDS, parser_of
from vscsihba.cli.completion import bash, fish, zsh
from vscsihba.cli.completion.syntax import Syntax, syntax_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import UsageError, VscsihbaError

_SHELLS: Final[dict[str, Callable[[Syntax], str]]] = {
    "bash": bash.script,
    "zsh": zsh.script,
    "fish": fish.script,
}

_EXAMPLES: Final = """\
  vscsihba completion bash > /etc/bash_completion.d/vscsihba
  vscsihba completion zsh > /usr/local/share/zsh/site-functions/_vscsihba
  vscsihba completion fish > /etc/fish/completions/vscsihba.fish
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("completion", usage="(bash | zsh | fish | --backstores) [--json]", examples=_EXAMPLES)
    made.add_argument("shell", nargs="?", choices=tuple(_SHELLS), help="shell to print the script for")
    made.add_argument(
        "--backstores", action="store_true", help="print the names of all backstores (the scripts use this)"
    )
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the script."""
    options = parser().parse_args(arguments)
    if options.backstores:
        return _print_backstores(as_json=options.json)
    if options.shell is None:
        raise UsageError("no shell is given", cure=f"use {', '.join(_SHELLS)}")
    script = _SHELLS[options.shell](whole())
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        sys.stdout.write(script)
    return 0


def _print_backstores(*, as_json: bool) -> int:
    """Print the names of the backstores, none if no service runs, since TAB should not print an error."""
    try:
        names = sorted(Daemon().show()["backstores"])
    except VscsihbaError:
        names = []
    if as_json:
        print_json(names)
    else:
        sys.stdout.writelines(f"{name}\n" for name in names)
    return 0


def whole() -> Syntax:
    """Return the syntax of the whole program."""
    commands = {
        command.name: syntax_of(command.load().parser(), command.summary) for command in COMMANDS.values()
    }
    return Syntax("", commands=commands)
