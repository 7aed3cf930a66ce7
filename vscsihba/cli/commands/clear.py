"""``vscsihba clear``: removes HBAs with their disks, including leftovers of dead processes."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Final

from vscsihba import configfs
from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.configfs.names import MAX_ID
from vscsihba.configfs.probe import check_root
from vscsihba.daemon.calls import Daemon, NoDaemonError
from vscsihba.engine.owning.locks import SERVICE, holder_of
from vscsihba.errors import InUseError, UsageError

_EXAMPLES: Final = """\
  vscsihba clear 7                          remove HBA 7
  vscsihba clear --all                      remove every HBA of vscsihba

The files behind the disks stay. HBAs of the service (which must run) and leftovers of dead processes are
removed; an HBA that vscsitarget serves is not. To remove disks that are in use, use --force.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("clear", usage="(HBA | --all) [--force] [--json]", examples=_EXAMPLES)
    made.add_argument("hba", metavar="HBA", nargs="?", type=_hba, help="id of the HBA, 0 to 255")
    made.add_argument("--all", action="store_true", help="every HBA")
    made.add_argument("--force", action="store_true", help="also remove disks that are in use")
    return made


def _hba(word: str) -> int:
    number = word.removeprefix("hba")  # "hba7", as other commands and the shell write it
    if not (number.isascii() and number.isdigit() and int(number) <= MAX_ID):
        raise ArgumentTypeError(f"{word!r} is not an HBA; use its id, 0 to {MAX_ID}")
    return int(number)


def run(arguments: Sequence[str]) -> int:
    """Remove the HBAs."""
    options = parser().parse_args(arguments)
    if (options.hba is None) != options.all:
        raise UsageError("give the id of an HBA, or --all", cure='see "vscsihba clear --help"')
    removed = _clear_services(options.hba, force=options.force)
    if removed is None or options.all:
        removed = [*(removed or []), *_clear_leftovers(options.hba, force=options.force)]
    if options.json:
        print_json({"removed": removed})
    else:
        print("removed all HBAs" if options.hba is None else f"removed HBA {options.hba}")
    return 0


def _clear_services(hba_id: int | None, *, force: bool) -> list[str] | None:
    """Have the service remove its HBAs and return their descriptions; None if it has no such HBA."""
    try:
        daemon = Daemon()
        if hba_id is not None and all(hba["id"] != hba_id for hba in daemon.show()["hbas"]):
            return None
        return daemon.clear(hba_id, force=force)
    except NoDaemonError:
        return None


def _clear_leftovers(hba_id: int | None, *, force: bool) -> list[str]:
    """Remove HBAs that are not served from the kernel, and return their descriptions."""
    check_root()
    ids = sorted(configfs.observe().hbas) if hba_id is None else [hba_id]
    for each in ids:
        _check_engine(each)
    removed = [what for each in ids for what in configfs.clear_hba(each, force=force)]
    if hba_id is not None and not removed:
        raise UsageError(f"there is no HBA {hba_id}", cure='see "vscsihba status"')
    return removed


def _check_engine(hba_id: int) -> None:
    """Refuse an HBA that an engine of the service still serves after the service has ended.

    Raises:
        InUseError: An engine of the service serves it.
    """
    holder = holder_of(hba_id)
    if holder is not None and holder[1] == SERVICE:
        raise InUseError(
            f"HBA {hba_id} is being served by engine {holder[0]} of the service",
            cure='start the service first: "systemctl start vscsihba", or "vscsihba daemon"',
        )
