"""``vscsihba shell``: manages disks in a tree, as targetcli does; from a prompt or a script."""

import sys
from argparse import REMAINDER
from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon

_EXAMPLES: Final = """\
  vscsihba shell                                    prompt with completion (TAB) and "help"
  vscsihba shell ls                                 run one command
  vscsihba shell /backstores/file create name=d1 path=/srv/d1.img size=1GiB
  vscsihba shell < commands.txt                     run a script; the first error ends it, with its exit code

Changes take effect at once, as with "vscsihba apply". To keep them for the next start, run "saveconfig".
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("shell", usage="[--json] [[PATH] COMMAND [WORD ...]]", examples=_EXAMPLES)
    made.add_argument("words", metavar="COMMAND", nargs=REMAINDER, help="command to run")
    return made


def run(arguments: Sequence[str]) -> int:
    """Run one command, a script on standard input, or an interactive session."""
    options = parser().parse_args(arguments)
    if options.words and options.words[0].startswith("-"):
        parser().error(f"unrecognized arguments: {options.words[0]}")
    from vscsihba.shell.context import ShellContext  # noqa: PLC0415 - configshell touches the terminal when it is imported
    from vscsihba.shell.session import Session  # noqa: PLC0415 - likewise

    session = Session(ShellContext(Daemon(), as_json=options.json))
    if options.words:
        session.run(options.words)
    elif sys.stdin.isatty():
        session.interact()
    else:
        session.run_script(sys.stdin)
    return 0
