"""``vscsihba replay``: sends the commands of a capture to a device, and compares the answers."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.lun_arg import lun_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.errors import HostError, UsageError
from vscsihba.units import counted

if TYPE_CHECKING:
    from vscsihba.capture.replay import Outcome
    from vscsihba.capture.saved import SavedCommand

_EXAMPLES: Final = """\
  vscsihba replay disk.pcapng hba0/lun1             send the commands to a disk of vscsihba
  vscsihba replay disk.pcapng /dev/sg3 --overwrite  send them to any device, and do not ask
  vscsihba replay disk.pcapng hba0/lun1 --timed     with the pauses of the capture
  vscsihba replay two.pcapng hba0/lun1 --lun hba0/lun5  only the commands of one LUN of the capture

Make the capture with "vscsihba trace --pcap FILE --snaplen all". The exit code is 1 if an answer differs.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("replay", usage="FILE DEVICE [--timed] [--overwrite] [--lun LUN]", examples=_EXAMPLES)
    made.add_argument("file", metavar="FILE", help="capture of vscsihba trace")
    made.add_argument(
        "device", metavar="DEVICE", help="hba0/lun1, the /dev/sdX of such a disk, or any /dev/sgN"
    )
    made.add_argument("--timed", action="store_true", help="keep the pauses between the commands")
    made.add_argument(
        "--overwrite", action="store_true", help="do not ask before commands that change the device"
    )
    made.add_argument("--lun", metavar="LUN", help="LUN of the capture, as hba0/lun1, if there are several")
    return made


def run(arguments: Sequence[str]) -> int:
    """Send the commands."""
    from vscsihba.capture import replay, saved  # noqa: PLC0415 - --help needs none of it
    from vscsihba.capture.sg_target import SgTarget  # noqa: PLC0415 - likewise

    options = parser().parse_args(arguments)
    path = Path(options.file)
    place = None
    if options.lun is not None:
        hba, lun = lun_of(options.lun)
        place = f"hba{hba}", lun
    node = _node(options.device)
    if _check(replay.of_lun(saved.saved_commands(path), place)) and not options.overwrite:
        _confirm(path, options.device)
    with SgTarget(node) as target:
        outcome = replay.replay(replay.of_lun(saved.saved_commands(path), place), target, timed=options.timed)
    _print(outcome, as_json=options.json)
    return 1 if outcome.differences else 0


def _check(commands: "Iterable[SavedCommand]") -> bool:
    """Read the whole capture before anything is sent; return whether a command changes data.

    Raises:
        UsageError: It is damaged, or lacks data that has to be sent.
    """
    from vscsihba.capture.replay import changes_data, check_complete  # noqa: PLC0415 - --help needs none of it

    changing = False
    for command in commands:
        check_complete(command)
        changing = changing or changes_data(command)
    return changing


def _node(word: str) -> Path:
    """Return the ``/dev/sgN`` of a device."""
    if word.startswith("/dev/sg"):
        return Path(word)
    from vscsihba import configfs  # noqa: PLC0415 - slow, and not needed for other devices

    hba, number = lun_of(word)
    found = configfs.observe().hbas.get(hba)
    lun = found.luns.get(number) if found else None
    if lun is None or lun.generic is None:
        raise HostError(f"{word} is no disk of this machine", cure='see "vscsihba status"')
    return lun.generic


def _confirm(path: Path, device: str) -> None:
    """Ask for the name of the device once more.

    Raises:
        UsageError: There is no terminal to ask at, or another name was given.
    """
    cure = "use --overwrite"
    if not sys.stdin.isatty():
        raise UsageError(f"{path} has commands that change {device}", cure=cure)
    print(f"{path} has commands that change {device}: its data will be lost.", file=sys.stderr)
    print("Type the name of the device to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != device:
        raise UsageError("another name was given; nothing was sent")


def _print(outcome: "Outcome", *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(outcome))
        return
    for difference in outcome.differences:
        print(f"{difference.number}: {difference.command}: {difference.text}")
    parts = [f"{counted(outcome.sent, 'command')} sent"]
    if outcome.skipped:
        parts.append(f"{outcome.skipped} skipped")
    differing = counted(len(outcome.differences), "difference") if outcome.differences else "no differences"
    print(", ".join([*parts, differing]))
