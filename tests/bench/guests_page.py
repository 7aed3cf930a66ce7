"""docs/bench/guests.md: plain files on three machines side by side, each from a run of its own.

The page says in which respects each of them resembles a real machine.
"""

from pathlib import Path
from typing import Final

from tests.bench import tables
from tests.bench.vm.findings import OURS, Findings

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs/bench"
_TEXT: Final = Path(__file__).parent / "pages/guests.md"
"""The page without results: written by people, with a comment where results belong."""
GUESTS: Final = {"qemu": "tuned QEMU", "plain": "plain QEMU", "sandbox": "sandbox"}
"""By the name of a file: the heading of a column."""


def write_guest(findings: Findings, name: str) -> Path:
    """Keep the results of a machine, and write the page anew; return it."""
    (FOLDER / f"guests-{name}.json").write_text(findings.dump())
    path = FOLDER / "guests.md"
    path.write_text(text())
    return path


def guests() -> dict[str, Findings]:
    """Return the results that are kept, by heading."""
    files = {heading: FOLDER / f"guests-{name}.json" for name, heading in GUESTS.items()}
    return {heading: Findings.load(file.read_text()) for heading, file in files.items() if file.exists()}


def text() -> str:
    """Return the page."""
    found = guests()
    first = next(iter(found.values()))
    lines = [
        f"- *{heading}:* Linux {machine['kernel']}, CPUs: {machine['cpus']}, clock {machine['clock']}, "
        f"rounds: {findings.rounds} of {machine['seconds']:g} s, {machine.get('load', 'load unknown')}.\n"
        for heading, findings in found.items()
        if (machine := findings.machine)
    ]
    rates = [
        (work, *(f"{findings.median(work, OURS):.0f}" for findings in found.values()))
        for work in first.workloads
    ]
    parts = ["".join(lines), _table(f"{OURS}, commands a second", found, rates)]
    for peer in first.contestants:
        if peer != OURS:
            rows = [
                (work, *(_ratio(findings.ratio(work, peer)) for findings in found.values()))
                for work in first.workloads
            ]
            parts.append(_table(f"{OURS} as a multiple of {peer}", found, rows))
    return _TEXT.read_text().replace("<!-- guests -->", "\n".join(parts).rstrip())


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value else "not measured"


def _table(title: str, found: dict[str, Findings], rows: list[tuple[str, ...]]) -> str:
    return f"**{title}**\n\n{tables.Table(title, ('workload', *found), rows).markdown()}"
