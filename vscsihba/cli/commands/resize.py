"""``vscsihba resize``: enlarges a backstore while its disk is in use; Linux sees the new size at once."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import UsageError
from vscsihba.units import format_size, parse_size

_EXAMPLES: Final = """\
  vscsihba resize boot 20GiB                enlarge to 20 GiB
  vscsihba resize boot +512M                enlarge by 512 MiB

A disk cannot shrink. To keep the new size for the next start, run "vscsihba save".
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("resize", usage="BACKSTORE SIZE [--json]", examples=_EXAMPLES)
    made.add_argument("backstore", metavar="BACKSTORE", help='name of the backstore, as in "vscsihba status"')
    made.add_argument(
        "size", metavar="SIZE", type=_size, help="new size, such as 20GiB, or an increase, such as +512M"
    )
    return made


def _size(word: str) -> tuple[bool, int]:
    """Read a size; return whether it is an increase, and the bytes."""
    try:
        return word.startswith("+"), parse_size(word.removeprefix("+"))
    except UsageError as error:
        raise ArgumentTypeError(str(error)) from error


def run(arguments: Sequence[str]) -> int:
    """Enlarge the backstore."""
    options = parser().parse_args(arguments)
    daemon = Daemon()
    more, size = options.size
    if more:
        size += _present(daemon, options.backstore)
    done = daemon.resize(options.backstore, size)
    if options.json:
        print_json(done)
    else:
        print(f"{options.backstore} now has {format_size(size)}")
    return 0


def _present(daemon: Daemon, backstore: str) -> int:
    """Return the bytes that the disk of a backstore has."""
    for hba in daemon.status()["hbas"]:
        for lun in hba["luns"]:
            if lun["backstore"] == backstore and lun["size"] is not None:
                return lun["size"]
    raise UsageError(
        f"no LUN has the backstore {backstore!r}", cure='see "vscsihba status", or give the whole size'
    )
