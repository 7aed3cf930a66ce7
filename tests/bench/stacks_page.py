"""docs/bench/stacks.md: stacks natively and beside others, each machine from a run of its own.

The results of each run are kept beside the page, so that one of them can be measured anew without the others.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.bench import stack_aims, tables
from tests.bench.stacks.measure import STACKS, StackRow
from tests.bench.vm.findings import Finding, Findings
from tests.bench.vm.stack_peers.compare import GROUPS

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs/bench"
_TEXT: Final = Path(__file__).parent / "pages/stacks.md"
"""The page without results: written by people, with a comment in each place where results belong."""
_NATIVE: Final = "stacks-native.json"
MACHINES: Final = {
    "sandbox": "In the sandbox",
    "qemu": "In QEMU without KVM, tuned",
    "kvm": "In QEMU with KVM",
}
"""By the name of a runner: the heading of its tables."""


def write_native(rows: Sequence[StackRow], load: str) -> Path:
    """Keep native results, and write the page anew; return it."""
    document = {"load": load, "rows": [asdict(row) for row in rows]}
    (FOLDER / _NATIVE).write_text(json.dumps(document, indent=1) + "\n")
    return write()


def write_machine(findings: Findings, runner: str) -> Path:
    """Keep the results of a machine, and write the page anew; return it.

    Comparisons that were not measured this time stay as they are, each with the load of its own run.
    """
    file = FOLDER / f"stacks-{runner}.json"
    load = findings.machine["load"]
    lines = [*findings.lines, *({"kind": "load", "group": name, "load": load} for name in findings.groups)]
    if file.exists():
        lines += kept(Findings.load(file.read_text()), findings)
    file.write_text(Findings(lines).dump())
    return write()


def kept(before: Findings, now: Findings) -> list[Finding]:
    """Return the earlier results that the new ones do not replace."""
    kinds = {"cipher"} if not now.of("cipher") else set()
    return [
        line
        for line in before.lines
        if line["kind"] in kinds or ("group" in line and line["group"] not in now.groups)
    ]


def write() -> Path:
    """Write the page from the results that are kept; return it."""
    path = FOLDER / "stacks.md"
    path.write_text(text())
    return path


def machines() -> dict[str, Findings]:
    """Return the results that are kept, by the name of the runner."""
    files = {runner: FOLDER / f"stacks-{runner}.json" for runner in MACHINES}
    return {runner: Findings.load(file.read_text()) for runner, file in files.items() if file.exists()}


def text() -> str:
    """Return the page."""
    found = machines()
    results = {
        "aims": "\n".join(aims(MACHINES[runner], findings) for runner, findings in found.items()),
        "native": natively(json.loads((FOLDER / _NATIVE).read_text())),
        "machines": "\n".join(machine(MACHINES[runner], findings) for runner, findings in found.items()),
    }
    page = _TEXT.read_text()
    for name, part in results.items():
        page = page.replace(f"<!-- {name} -->", part.rstrip())
    return page


def natively(document: dict[str, Any]) -> str:
    """Return the section of native results."""
    table = tables.stacks([StackRow(**row) for row in document["rows"]]).markdown()
    bare = "\n".join(f"- {stack.name}: {stack.against}" for stack in STACKS)
    return f"With a {document['load']}.\n\n{table}\nThe bare calls are:\n\n{bare}\n"


def in_order(findings: Findings) -> list[str]:
    """Return the names of the comparisons in the order of their definition."""
    order = [group.name for group in GROUPS]
    return sorted(findings.groups, key=lambda name: order.index(name) if name in order else len(order))


def aims(heading: str, findings: Findings) -> str:
    """Return the table of aims on one machine."""
    table = tables.Table("", stack_aims.HEADINGS, stack_aims.rows(findings))
    return f"{heading}:\n\n{table.markdown()}"


def machine(heading: str, findings: Findings) -> str:
    """Return the section of one machine."""
    about = findings.machine
    plural = "s" * (about["cpus"] > 1)
    where = f"Linux {about['kernel']}, {about['cpus']} CPU{plural}, Python {about['python']}"
    parts = [f"## {heading}\n", f"{where}.\n", *(f"{line}\n" for line in tables.rest(findings))]
    loads = {line["group"]: line["load"] for line in findings.of("load")}
    for name in in_order(findings):
        group = findings.group(name)
        how = f"medians of {group.rounds} rounds, {loads.get(name, 'load unknown')}"
        parts.append(f"**{name}** ({how})\n\n{tables.compared(name, group).markdown()}")
    return "\n".join(parts)
