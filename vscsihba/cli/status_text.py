"""Text of ``vscsihba status`` for a terminal of a given width.

Knows the answer of the service, not where it comes from.

A table row is never broken, and neither is a path or a state: where a table would be wider than the terminal,
columns are left out. The state is one word there; its reason, and the cure, follow below the tables.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from rich.text import Text

from vscsihba.cli.export_text import export_lines
from vscsihba.cli.output import Cell, table_lines, wrapped
from vscsihba.daemon.calls import HbaStatus, LunStatus, Status
from vscsihba.units import format_size


def _state(lun: LunStatus) -> Text:
    text = Text(lun["state"].partition(": ")[0], style="green" if lun["state"] == "running" else "bold red")
    if lun["read_only"]:
        text.append(", read-only", style="default")
    return text


def _layers(stack: str) -> str:
    """Return the layers of a stack without path and size: ``cow, file`` of ``cow, file /srv/a.img``."""
    match = re.match(r"(?:[^ ,]+, )*[^ ,]+", stack)
    return match[0] if match is not None else stack


_COLUMNS: Final[dict[str, Callable[[LunStatus], Cell]]] = {
    "LUN": lambda lun: str(lun["lun"]),
    "BACKSTORE": lambda lun: lun["backstore"] or "-",
    "DEVICE": lambda lun: lun["device"] or ("-" if lun.get("local", True) else "exported"),
    "SIZE": lambda lun: "-" if lun["size"] is None else format_size(lun["size"]),
    "STATE": _state,
    "ENGINE": lambda lun: str(lun["engine"] or "-"),
    "IOPS": lambda lun: "-" if lun["iops"] is None else f"{lun['iops']:.0f}",
    "STACK": lambda lun: lun["stack"] or "-",
    "LAYERS": lambda lun: _layers(lun["stack"] or "-"),
    "BY-ID": lambda lun: Path(lun["by_id"] or "-").name,
}
"""Columns of the table of LUNs, by heading."""

_EVERYTHING: Final = ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "ENGINE", "IOPS", "STACK", "BY-ID")

_CHOICES: Final = (
    _EVERYTHING,
    ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "ENGINE", "IOPS", "STACK"),
    ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "ENGINE", "IOPS", "LAYERS"),
    ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "IOPS", "LAYERS"),
    ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "LAYERS"),
    ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "ENGINE", "IOPS"),
    ("LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE"),
    ("LUN", "DEVICE", "SIZE", "STATE", "ENGINE", "IOPS"),
    ("LUN", "DEVICE", "SIZE", "STATE"),
)
"""Columns to show, the most informative first; the first that fit into the terminal are taken."""

_EXPLANATIONS: Final = {
    "not served": (
        "the engine is dead, and commands wait. The service starts another engine; without the service, "
        'start vscsitarget again, or remove the HBA with "vscsihba clear {hba}".'
    ),
    "no SCSI device": (
        "Linux has no disk for it. If this lasts, another program has deleted the disk, as "
        '"echo 1 > /sys/block/sdX/device/delete" does. To attach it again, restart the service '
        '("systemctl restart vscsihba"), or the vscsitarget that serves it; a memory disk loses its data.'
    ),
    "incomplete": (
        "creation was interrupted. Restart the service or vscsitarget to finish it, or remove the HBA "
        'with "vscsihba clear {hba}".'
    ),
    "missing": (
        "another program has removed the LUN, or its HBA, from the kernel. To create it again, restart the "
        'service ("systemctl restart vscsihba").'
    ),
}
"""Cause and cure of the states that have no reason of their own."""

_HINT: Final = '"vscsihba status --wide" shows every column'


def status_lines(status: Status, now: float, width: int | None) -> Iterator[Text]:
    """Yield the lines that show everything to a person.

    Args:
        status: The answer of the service, or of `vscsihba.daemon.kernel_status`.
        now: Seconds since 1970.
        width: Columns of the terminal; None shows every column of the tables.
    """
    yield Text(_service_line(status, now))
    for problem in status.get("problems", []):  # a service of an older version tells none
        yield from wrapped(Text(problem, style="bold red"), width)
    if status["hbas"]:
        yield from _hba_lines(status["hbas"], now, width)
    else:
        yield Text("no virtual HBA")
    yield from export_lines(status.get("exports", []), width)
    if status["others"]:
        yield Text()
        yield Text("of other programs, never touched:")
        yield from table_lines(
            [(f"  {each['kind']}", each["name"], each["text"]) for each in status["others"]], (), width
        )


def _service_line(status: Status, now: float) -> str:
    daemon = status["daemon"]
    if daemon is None:
        return "service: not running"
    return f"service: running for {duration(now - daemon['since'])}, pid {daemon['pid']}"


def _hba_lines(hbas: list[HbaStatus], now: float, width: int | None) -> Iterator[Text]:
    """Yield the tables of LUNs and engines, and explanations of the states that need one."""
    table, whole_stacks = _lun_table(hbas, width)
    yield Text()
    yield from table
    if engines := list(_engine_rows(hbas, now)):
        yield Text()
        yield from table_lines(engines, ("HBA", "ENGINE", "RUNNING FOR", "STATE"), width)
    explanations = [*_explanations(hbas), *_reservations(hbas)]
    if explanations:
        yield Text()
    for text in explanations:
        yield from wrapped(Text(text), width)
    if not whole_stacks:
        yield Text()
        yield Text(_HINT)


def _lun_table(hbas: list[HbaStatus], width: int | None) -> tuple[list[Text], bool]:
    """Return the table with as many columns as fit, and whether it shows whole stacks."""
    for columns in _CHOICES:
        headings = ["HBA", *("STACK" if name == "LAYERS" else name for name in columns)]
        lines = list(table_lines(list(_lun_rows(hbas, columns)), headings, None))
        if width is None or max(line.cell_len for line in lines) <= width:
            break
    return lines, "STACK" in columns


def _lun_rows(hbas: list[HbaStatus], columns: Iterable[str]) -> Iterator[list[Cell]]:
    for hba in hbas:
        for lun in hba["luns"]:
            yield [str(hba["id"]), *(_COLUMNS[name](lun) for name in columns)]
        if not hba["luns"]:
            yield [str(hba["id"]), "-"]


def _engine_rows(hbas: list[HbaStatus], now: float) -> Iterator[list[Cell]]:
    for hba in hbas:
        for engine in hba["engines"]:
            style = "green" if engine["state"] == "running" else "bold red"
            running = duration(now - engine["since"])
            yield [str(hba["id"]), str(engine["pid"]), running, Text(engine["state"], style=style)]


def _explanations(hbas: list[HbaStatus]) -> Iterator[str]:
    """Yield a sentence for each state of an HBA's LUNs other than running; LUNs of one state share it."""
    for hba in hbas:
        luns: dict[str, list[int]] = {}
        for lun in hba["luns"]:
            luns.setdefault(lun["state"], []).append(lun["lun"])
        for state, numbers in luns.items():
            name, _, reason = state.partition(": ")
            where = f"LUN {_ranges(numbers)} of HBA {hba['id']}"
            if reason:
                yield f"{where}: {name}: {reason}"
            elif name in _EXPLANATIONS:
                yield f"{where}: {_EXPLANATIONS[name].format(hba=hba['id'])}"


def _reservations(hbas: list[HbaStatus]) -> Iterator[str]:
    """Yield a sentence for each LUN with persistent reservations; an older service tells none."""
    for hba in hbas:
        for lun in hba["luns"]:
            if (found := lun.get("reservation")) is None:
                continue
            held = f"reserved by {found['holder']} ({found['type']})" if found["holder"] else "not reserved"
            registered = ", ".join(sorted(set(found["registrants"])))
            yield f"LUN {lun['lun']} of HBA {hba['id']}: {held}; registered: {registered}"


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers in short: ``0-3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


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
