"""``vscsihba daemon``: the service in the foreground; restores and runs the saved configuration."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import PROGRAM, parser_of
from vscsihba.cli.program import Parser
from vscsihba.daemon.run import serve
from vscsihba.logs import log_in_background

_EXAMPLES: Final = """\
  vscsihba daemon                           run until Ctrl-C or SIGTERM; the disks keep running
  vscsihba daemon --json                    the same, with a log for programs
  vscsihba install-service --start          let systemd run the service

A new service adopts running disks, even if the old one was killed. The log goes to standard
error.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    return parser_of("daemon", usage="[--json]", examples=_EXAMPLES, json_help="log one JSON object a line")


def run(arguments: Sequence[str]) -> int:
    """Run the service until a signal ends it."""
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
