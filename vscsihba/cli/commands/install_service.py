"""``vscsihba install-service``: installs, starts or removes the systemd unit of the service."""

from collections.abc import Sequence
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.daemon import service_unit

_EXAMPLES: Final = """\
  vscsihba install-service --start          install the unit, start it now and at every boot
  vscsihba install-service                  only install the unit
  vscsihba install-service --remove         stop the service and remove the unit; the disks keep running

Without systemd, let your init system run "vscsihba daemon" as root.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("install-service", usage="[--start | --remove] [--json]", examples=_EXAMPLES)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--start", action="store_true", help="start the service now and at every boot")
    what.add_argument("--remove", action="store_true", help="stop the service and remove the unit")
    return made


def run(arguments: Sequence[str]) -> int:
    """Install or remove the unit."""
    options = parser().parse_args(arguments)
    if options.remove:
        removed = service_unit.remove()
        result: dict[str, object] = {"removed": removed}
        text = "removed; the disks keep running" if removed else "the service is not installed"
    else:
        unit = service_unit.install(start=options.start)
        result = {"unit": str(unit), "started": options.start}
        hint = "started" if options.start else f'to start it: "systemctl enable --now {service_unit.NAME}"'
        text = f"installed {unit}; {hint}"
    if options.json:
        print_json(result)
    else:
        print(text)
    return 0
