"""``./dev bench``: cost of a command natively; with ``--vm``, our disks beside others, on a real kernel.

Exit codes: 0 measured; 1 something could not be; 2 wrong usage.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from rich.console import Console

from tests.bench import command_path, document, rbd, remote, slow_flush, tables
from tests.bench.vm import campaign, guest
from tests.bench.vm.findings import Findings


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="./dev bench", description="Measure.", parents=[guest.parser()], epilog="Without --vm: natively."
    )
    made.add_argument("--vm", action="store_true", help="compare with other programs in a VM")
    made.add_argument(
        "--write-docs",
        action="store_true",
        help=f"both, and write {document.FOLDER.relative_to(campaign.ROOT)}",
    )
    made.add_argument(
        "--from", type=Path, metavar="FILE", dest="file", help="run no VM: read what was found before"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main() -> int:
    """Measure, then print."""
    made = parser()
    options = made.parse_args()
    if not options.vm and (options.part or options.peer or options.workload or options.quick):
        made.error("--part, --peer, --workload and --quick need --vm")
    console = Console(stderr=options.json)
    results: dict[str, object] = {"python": platform.python_version()}
    findings = None
    if options.vm or options.file or options.write_docs:
        findings = _found(options)
        results["findings"] = findings.lines
        for table in tables.of(findings):
            console.print(table.rich())
        for line in tables.rest(findings):
            console.print(line)
    if findings is None or options.write_docs:
        rows, flush = measure()
        results |= {"rows": [asdict(row) for row in rows], "slow_flush": asdict(flush)}
        console.print(tables.native(rows).rich())
        console.print(tables.slow_flush(flush))
        if findings is not None:
            console.print(f"written: {document.write(findings, rows, flush)}")
    if options.json:
        print(json.dumps(results))
    return 0


def _found(options: argparse.Namespace) -> Findings:
    """Run the VM, or read what an earlier run has found."""
    if options.file is None:
        return campaign.run(options, Console(stderr=True))
    text: str = options.file.read_text()
    return Findings.load(text)


def measure() -> tuple[list[command_path.Row], slow_flush.SlowFlush]:
    """Run the measurements that need no kernel."""
    rows = []
    with Console(stderr=True).status("measuring") as status:
        for row in chain(command_path.rows(), remote.rows(), rbd.rows()):
            rows.append(row)
            status.update(f"measured {row.name}")
        status.update("measuring reads beside a slow flush")
        return rows, slow_flush.measure()


if __name__ == "__main__":
    sys.exit(main())
