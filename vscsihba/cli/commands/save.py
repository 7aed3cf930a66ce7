"""``vscsihba save``: saves the running configuration, which the service restores when it starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon

_EXAMPLES: Final = """\
  vscsihba save                             save for the next start of the service
  vscsihba save /root/disks.json            save to another file

The file is replaced atomically, and the last ten versions are kept beside it. An empty configuration
replaces one that is not empty only with --force.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("save", usage="[FILE] [--force] [--json]", examples=_EXAMPLES)
    made.add_argument(
        "file", metavar="FILE", nargs="?", help="where to save (default: the file that is restored at start)"
    )
    made.add_argument(
        "--force", action="store_true", help="also replace a saved configuration by an empty one"
    )
    return made


def run(arguments: Sequence[str]) -> int:
    """Save the configuration."""
    options = parser().parse_args(arguments)
    # The service has a working directory of its own.
    wanted = None if options.file is None else Path(options.file).absolute()
    path = Daemon().save(wanted, force=options.force)
    if options.json:
        print_json({"path": str(path)})
    else:
        print(f"saved in {path}")
    return 0
