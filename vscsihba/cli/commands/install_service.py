"""``vscsihba install-service``: has systemd start the service with the machine, or no longer."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon import service_unit

_EXAMPLES: Final = """\
  vscsihba install-service --start          now, and whenever the machine starts
  vscsihba install-service                  only write the unit
  vscsihba install-service --remove         stop it and take the unit away; disks work on

Without systemd, have your init run "vscsihba daemon" as root.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("install-service", usage="[--start | --remove] [--json]", examples=_EXAMPLES)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--start", action="store_true", help="start it now, and whenever the machine starts")
    what.add_argument("--remove", action="store_true", help="take it away again")
    return made


def run(arguments: Sequence[str]) -> int:
    """Install or remove the unit."""
    options = parser().parse_args(arguments)
    if options.remove:
        removed = service_unit.remove()
        found: dict[str, object] = {"removed": removed}
        text = "removed; its disks work on" if removed else "there is no service installed"
    else:
        unit = service_unit.install(start=options.start)
        found = {"unit": str(unit), "started": options.start}
        hint = "started" if options.start else f"systemctl enable --now {service_unit.NAME} starts it"
        text = f"installed {unit}; {hint}"
    if options.json:
        print_json(found)
    else:
        print(text)
    return 0
