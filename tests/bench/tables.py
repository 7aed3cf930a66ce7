"""Tables of the results, for a terminal and for Markdown alike: a title, headings and rows of words."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from tests.bench import aims
from tests.bench.command_path import Row
from tests.bench.native import Native
from tests.bench.slow_flush import FLUSH_SECONDS
from tests.bench.stacks.measure import StackRow
from tests.bench.vm.findings import OURS, Findings


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of words; the first column is left-aligned, the others hold numbers."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def rich(self) -> RichTable:
        """Return it for a terminal."""
        made = RichTable(title=self.title)
        for number, heading in enumerate(self.headings):
            made.add_column(heading, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            made.add_row(*row)
        return made

    def markdown(self) -> str:
        """Return it for a page."""
        lines = [self.headings, ("---", *["---:"] * (len(self.headings) - 1)), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def native(measured: Native) -> list[Table]:
    """Return the tables of all native parts that were run."""
    made = [commands(measured.rows)] if measured.rows else []
    return made + ([stacks(measured.stacks)] if measured.stacks else [])


def stacks(rows: Sequence[StackRow]) -> Table:
    """Return the table of the cost of a command on stacks of handlers."""
    return Table(
        "One command on a stack, natively",
        ("stack: command", "time, µs", "spread, µs", "bare, µs", "ratio", "CPU time, µs", "CPU ratio"),
        [
            (
                f"{row.stack}: {row.command}",
                f"{row.microseconds:.2f}",
                f"{row.spread:.2f}",
                f"{row.bare:.2f}",
                f"{row.ratio:.2f}",
                f"{row.processor:.2f}",
                f"{row.processor_ratio:.2f}",
            )
            for row in rows
        ],
    )


def commands(rows: Sequence[Row]) -> Table:
    """Return the table of the cost of a command without a kernel."""
    return Table(
        "One command through ring, decode, checks, handler and answer, natively",
        ("command", "time, µs", "spread, µs", "compared with", "that, µs", "ratio"),
        [
            (
                row.name,
                f"{row.microseconds:.2f}",
                f"{row.spread:.2f}",
                row.against,
                f"{row.bare:.2f}" if row.bare else "",
                f"{row.ratio:.2f}" if row.bare else "",
            )
            for row in rows
        ],
    )


def slow_flush(measured: Native) -> list[str]:
    """Return the line on the latency of reads beside a flush, if that was measured."""
    found = measured.slow_flush
    if found is None:
        return []
    beside = f"beside a flush of {FLUSH_SECONDS * 1e3:.0f} ms: {found.beside:.0f} µs"
    alone = f"alone: {found.alone:.0f} µs; ratio {found.ratio:.2f}"
    return [f"4 KiB reads of a slow stack, {beside}; {alone}"]


def throughput(findings: Findings) -> Table:
    """Return commands a second of everybody, with the spread of ours."""
    rows = []
    for workload in findings.workloads:
        ours = findings.values(workload, OURS) or [0.0]
        cells = [f"{findings.median(workload, name):.0f}" for name in findings.contestants]
        rows.append((workload, *cells, f"{min(ours):.0f} to {max(ours):.0f}"))
    return Table(
        f"Commands a second, medians of {findings.rounds} rounds",
        ("workload", *findings.contestants, f"spread of {OURS}"),
        rows,
    )


def ratios(findings: Findings) -> Table:
    """Return how many times as quick ours is."""
    peers = [name for name in findings.contestants if name != OURS]
    return Table(
        f"{OURS} as a multiple of each",
        ("workload", *peers),
        [
            (workload, *(f"{findings.ratio(workload, peer):.2f}" for peer in peers))
            for workload in findings.workloads
        ],
    )


def compared(name: str, findings: Findings) -> Table:
    """Return the table of one comparison: commands a second, and ours as a multiple of each peer's.

    Args:
        name: The title.
        findings: Samples of that comparison only.
    """
    peers = [peer for peer in findings.contestants if peer != OURS]
    rows = []
    for workload in findings.workloads:
        cells = [_compared(findings, workload, peer) for peer in peers]
        rows.append((workload, f"{findings.median(workload, OURS):.0f}", *cells))
    return Table(name, ("workload", OURS, *peers), rows)


def _compared(findings: Findings, workload: str, peer: str) -> str:
    if not findings.values(workload, peer):
        return "not measured"
    ratios = f"{findings.ratio(workload, peer):.2f} / {findings.cost_ratio(workload, peer):.2f}"
    return f"{findings.median(workload, peer):.0f}: {ratios}"


def missing(findings: Findings) -> list[str]:
    """Return a line for each peer that could not be measured."""
    return [
        f"Not measured: {line['contestant']} ({line['group']}): {line['reason']}."
        for line in findings.of("missing")
    ]


def cpu(findings: Findings) -> Table:
    """Return CPU time a command: of the serving process, and of the machine."""
    return Table(
        "CPU time for a command in µs: of the serving process / of the whole machine",
        ("workload", *findings.contestants),
        [
            (
                workload,
                *(
                    f"{findings.median(workload, name, 'engine_us'):.0f} / "
                    f"{findings.median(workload, name, 'machine_us'):.0f}"
                    for name in findings.contestants
                ),
            )
            for workload in findings.workloads
        ],
    )


def calls(findings: Findings) -> Table:
    """Return system calls for each command."""
    return Table(
        "System calls for each command (strace -c)",
        ("workload", "all", "of which"),
        [
            (
                line["workload"],
                f"{line['total']:.2f}",
                ", ".join(f"{name} {count:.2f}" for name, count in line["calls"].items() if count >= 0.005),
            )
            for line in findings.of("calls")
        ],
    )


def scaling(findings: Findings) -> Table:
    """Return commands a second of several LUNs together."""
    found = findings.scaling()
    luns = list(dict.fromkeys(line["luns"] for line in findings.of("scaling")))
    return Table(
        "4 KiB random reads a second, depth 8 on each LUN, all LUNs together",
        ("engines", *(f"{count} LUN{'s' if count > 1 else ''}" for count in luns)),
        [(str(engines), *(f"{found[engines][count]:.0f}" for count in luns)) for engines in found],
    )


def footprint(findings: Findings) -> Table:
    """Return memory and time until ready."""
    return Table(
        "One engine and its LUNs",
        ("LUNs", "resident, MiB", "all disks ready after, s"),
        [
            (str(line["luns"]), f"{line['resident_kib'] / 1024:.1f}", f"{line['ready_seconds']:.1f}")
            for line in findings.of("footprint")
        ],
    )


def rest(findings: Findings) -> list[str]:
    """Return the results that are no table."""
    said = [
        f"`vscsihba --help` takes {line['vscsihba']:.2f} s, `vscsitarget --help` {line['vscsitarget']:.2f} s."
        for line in findings.of("start")
    ]
    said += [
        f"An engine with {line['luns']} LUNs that nobody uses took {line['cpu_seconds'] * 1e3:.1f} ms of "
        f"a processor in {line['seconds']:.0f} s."
        for line in findings.of("idle")
    ]
    said += [
        f"AES-256-XTS in this boot: {line['openssl']:.0f} MiB/s in OpenSSL, "
        f"{line['kernel']:.0f} MiB/s in the kernel ({line['driver']})."
        for line in findings.of("cipher")
    ]
    return said + missing(findings)


def aims_reached(findings: Findings, rows: Sequence[Row]) -> Table:
    """Return the table of aims, and of the values reached."""
    return Table("Aims", ("what", "aim", "reached", "enough"), aims.rows(findings, rows))


def of(findings: Findings) -> list[Table]:
    """Return the tables of all parts that were run."""
    made = [
        (throughput, "sample"),
        (ratios, "sample"),
        (cpu, "sample"),
        (calls, "calls"),
        (scaling, "scaling"),
        (footprint, "footprint"),
    ]
    there = [table(findings) for table, kind in made if findings.of(kind)]
    return there + [compared(name, findings.group(name)) for name in findings.groups]
