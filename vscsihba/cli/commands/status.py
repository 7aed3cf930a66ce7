"""``vscsihba status``: every HBA, LUN and engine, and how it is, with and without a service."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.text import Text

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import Cell, print_json, print_table, show
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Daemon, HbaStatus, LunStatus, NoDaemonError, Status
from vscsihba.daemon.kernel_status import kernel_status
from vscsihba.units import format_size

_EXAMPLES: Final = """\
  vscsihba status
  vscsihba status --json | jq -r '.hbas[].luns[].device'

Where the service runs it is asked; otherwise the kernel and the engines are. Objects of other programs are
shown at the end, and never touched.
"""

_HEADINGS: Final = ("HBA", "LUN", "BACKSTORE", "DEVICE", "SIZE", "STACK", "ENGINE", "IOPS", "STATE", "BY-ID")
_FOLDING: Final = ("STACK", "STATE")


def parser() -> Parser:
    """Return the parser of the command line."""
    return parser_of("status", usage="[--json]", examples=_EXAMPLES)


def run(arguments: Sequence[str]) -> int:
    """Print how everything is."""
    options = parser().parse_args(arguments)
    try:
        status = Daemon().status()
    except NoDaemonError:
        status = kernel_status()
    if options.json:
        print_json(status)
    else:
        print_status(status, time.time())
    return 0


def print_status(status: Status, now: float) -> None:
    """Print everything for a person.

    Args:
        status: How everything is.
        now: Seconds since 1970.
    """
    daemon = status["daemon"]
    if daemon is None:
        print("service: not running")
    else:
        print(f"service: running for {duration(now - daemon['since'])}, pid {daemon['pid']}")
    for problem in status.get("problems", []):  # a service of an older version tells none
        show(Text(problem, style="bold red"))
    if status["hbas"]:
        print()
        print_table([row for hba in status["hbas"] for row in _rows(hba)], _HEADINGS, folding=_FOLDING)
        print()
        print_table(list(_engines(status["hbas"], now)), ("HBA", "ENGINE", "RUNNING FOR", "STATE"))
    else:
        print("no virtual HBA")
    if status["others"]:
        print("\nof other programs, never touched:")
        print_table([(f"  {each['kind']}", each["name"], each["text"]) for each in status["others"]])
    sys.stdout.flush()


def _rows(hba: HbaStatus) -> Iterator[Sequence[Cell]]:
    if not hba["luns"]:
        yield [str(hba["id"]), "-", *[""] * (len(_HEADINGS) - 2)]
    for lun in hba["luns"]:
        yield [str(hba["id"]), *_cells(lun)]


def _cells(lun: LunStatus) -> list[Cell]:
    size = "-" if lun["size"] is None else format_size(lun["size"])
    iops = "-" if lun["iops"] is None else f"{lun['iops']:.0f}"
    return [
        str(lun["lun"]),
        lun["backstore"] or "-",
        lun["device"] or "-",
        size,
        lun["stack"] or "-",
        str(lun["engine"] or "-"),
        iops,
        _state(lun),
        Path(lun["by_id"] or "-").name,
    ]


def _state(lun: LunStatus) -> Text:
    text = Text(lun["state"], style="green" if lun["state"] == "running" else "bold red")
    if lun["read_only"]:
        text.append(", read-only", style="default")
    return text


def _engines(hbas: list[HbaStatus], now: float) -> Iterator[Sequence[Cell]]:
    for hba in hbas:
        for engine in hba["engines"]:
            style = "green" if engine["state"] == "running" else "bold red"
            running = duration(now - engine["since"])
            yield [str(hba["id"]), str(engine["pid"]), running, Text(engine["state"], style=style)]


def duration(seconds: float) -> str:
    """Return a time span in its two largest units: ``2 h 3 min``."""
    whole = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, length in units:
        count, whole = divmod(whole, length)
        parts.append((count, name))
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {name}" for count, name in parts[first : first + 2] if count) or "0 s"
