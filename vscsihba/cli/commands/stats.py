"""``vscsihba stats``: counters and latencies of every LUN, since it was added or they were cleared."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.lun_arg import DESCRIPTION, lun_of
from vscsihba.cli.machine_state import clear_statistics, machine_statistics, machine_status
from vscsihba.cli.output import print_json, show, table_lines
from vscsihba.cli.program import Parser
from vscsihba.daemon.calls import Status
from vscsihba.daemon.statistics import LunStatistics, histograms
from vscsihba.errors import UsageError
from vscsihba.latency import KINDS, Histogram
from vscsihba.units import counted, format_seconds, format_size

_EXAMPLES: Final = """\
  vscsihba stats                            every disk
  vscsihba stats hba0/lun0 /dev/sdc         these disks
  vscsihba stats --reset hba0/lun0          count from zero again, also in the log pages
  vscsihba stats --json | jq '.[] | {backstore, p99: .reads.p99}'

P50, P95 and P99 are the times within which half of the commands, 95 % and 99 % have ended, from the arrival
of a command at the engine to its completion. They are within 3 %. "others" are all commands that are no READ
or WRITE, and all that ended with an error. Statistics go on when another engine takes a disk over.
"""

_BYTES: Final = {"reads": "read_bytes", "writes": "write_bytes"}
"""The counter of bytes of a kind of command."""

_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}


Place = tuple[int, int]
"""HBA and number of a LUN."""

Names = tuple[str | None, str | None]
"""Backstore and device of a LUN."""


@dataclass(frozen=True, slots=True)
class _Row:
    """The commands of one kind of one LUN."""

    kind: str
    count: int
    size: int | None
    latencies: Histogram

    def as_json(self) -> dict[str, object]:
        """Return the numbers; times in seconds."""
        return {
            "commands": self.count,
            **({} if self.size is None else {"bytes": self.size}),
            "seconds": self.latencies.seconds,
            **{name: self.latencies.quantile(part) for name, part in _QUANTILES.items()},
        }

    def cells(self) -> list[str]:
        """Return the numbers as text."""
        quantiles = [self.latencies.quantile(part) for part in _QUANTILES.values()]
        return [
            self.kind,
            f"{self.count:,}",
            "-" if self.size is None else format_size(self.size),
            *("-" if each is None else format_seconds(each) for each in quantiles),
        ]


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("stats", usage="[DISK ...] [--reset] [--json]", examples=_EXAMPLES)
    made.add_argument("disks", metavar="DISK", nargs="*", help=f"{DESCRIPTION}; default: all")
    made.add_argument("--reset", action="store_true", help="count from zero again")
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the statistics, or let them begin anew."""
    options = parser().parse_args(arguments)
    wanted = [lun_of(disk) for disk in options.disks]
    status = machine_status()
    served = {(each["hba"], each["lun"]): each for each in machine_statistics()}
    for hba, lun in wanted:
        if (hba, lun) not in served:
            raise UsageError(f"no engine serves LUN {lun} of HBA {hba}", cure='see "vscsihba status"')
    shown = {key: each for key, each in served.items() if not wanted or key in wanted}
    if options.reset:
        for hba, lun in shown:
            clear_statistics(hba, lun)
    names = _names(status)
    if options.json:
        print_json([_as_json(each, names) for each in shown.values()])
    elif options.reset:
        print(f"cleared the statistics of {counted(len(shown), 'disk')}")
    elif not shown:
        print("no disk is served")
    else:
        _print(shown.values(), names)
    sys.stdout.flush()
    return 0


def _names(status: Status) -> dict[Place, Names]:
    """Return backstore and device of each LUN."""
    return {
        (hba["id"], lun["lun"]): (lun["backstore"], lun["device"])
        for hba in status["hbas"]
        for lun in hba["luns"]
    }


def _rows(lun: LunStatistics) -> list[_Row]:
    counters, latencies = lun["counters"], histograms(lun["latencies"])
    counts = {**counters, "others": counters["others"] + counters["errors"]}
    return [_Row(kind, counts[kind], counters.get(_BYTES.get(kind, "")), latencies[kind]) for kind in KINDS]


def _as_json(lun: LunStatistics, names: Mapping[Place, Names]) -> dict[str, object]:
    backstore, device = names.get((lun["hba"], lun["lun"]), (None, None))
    return {
        "hba": lun["hba"],
        "lun": lun["lun"],
        "backstore": backstore,
        "device": device,
        "errors": lun["counters"]["errors"],
        **{row.kind: row.as_json() for row in _rows(lun)},
    }


def _print(luns: Iterable[LunStatistics], names: Mapping[Place, Names]) -> None:
    """Print a table with three rows a LUN, below its name."""
    titles = {}
    rows: list[list[str]] = []
    for lun in luns:
        backstore, device = names.get((lun["hba"], lun["lun"]), (None, None))
        words = [f"hba{lun['hba']}/lun{lun['lun']}", backstore, device]
        titles[len(rows)] = " ".join(word for word in words if word)
        rows += [["", *row.cells()] for row in _rows(lun)]
    heading, *lines = table_lines(rows, ("", "", "COMMANDS", "BYTES", "P50", "P95", "P99", "LONGEST"), None)
    show(heading)
    for at, line in enumerate(lines):
        if at in titles:
            show(Text(titles[at], style="bold"))
        show(line)
