"""``vscsihba daemon``: the service, in the foreground: restores what was saved, and keeps its disks alive."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import PROGRAM, parser_of
from vscsihba.cli.program import Parser
from vscsihba.daemon.run import serve
from vscsihba.logs import log_in_background

_EXAMPLES: Final = """\
  vscsihba daemon                           until Ctrl-C or SIGTERM; its disks work on after that
  vscsihba daemon & vscsihba clear --all    a fresh start
  vscsihba install-service --start          let systemd run it

A new one goes on with what it finds, also after kill -9. What it does is said on standard error, with --json
as one JSON object a line.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    return parser_of("daemon", usage="[--json]", examples=_EXAMPLES)


def run(arguments: Sequence[str]) -> int:
    """Be the service until a signal ends it."""
    options = parser().parse_args(arguments)
    if not options.json:
        serve()
        return 0
    listener = log_in_background(PROGRAM, as_json=True)
    try:
        serve()
    finally:
        listener.stop()
    return 0
