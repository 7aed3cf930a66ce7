"""``./dev bench``: cost of a command natively; with ``--vm``, our disks beside others, on a real kernel.

    ./dev bench --part stacks --stack mirror --stack encrypt     # some stacks only, natively

Exit codes: 0 measured; 1 something could not be; 2 wrong usage.
"""

import argparse
import json
import logging
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from rich.console import Console

from tests.bench import command_path, document, rbd, remote, slow_flush, tables
from tests.bench.native import NATIVE_PARTS, Native
from tests.bench.stacks import measure as stacks
from tests.bench.vm import campaign, guest
from tests.bench.vm.findings import Findings

_PAGE = 140
"""Columns of a table that is written to a file."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measure.",
        parents=[guest.parser()],
        epilog=f"Without --vm: natively. Parts natively: {', '.join(NATIVE_PARTS)}; "
        f"with --vm: {', '.join(guest.PARTS)}.",
    )
    made.add_argument("--vm", action="store_true", help="compare with other programs in a VM")
    made.add_argument(
        "--runner",
        choices=campaign.RUNNERS,
        default="qemu",
        help="the VM: QEMU, with KVM if it works, or the sandbox (qemu)",
    )
    made.add_argument(
        "--write-docs",
        action="store_true",
        help=f"both, and write {document.FOLDER.relative_to(campaign.ROOT)}",
    )
    made.add_argument(
        "--from", type=Path, metavar="FILE", dest="file", help="run no VM: read what was found before"
    )
    made.add_argument("--depth", type=int, default=32, help="commands at once on a stack, natively (32)")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main() -> int:
    """Measure, then print."""
    options = checked_options()
    logging.basicConfig(level=logging.ERROR)
    console = Console(stderr=options.json, width=None if sys.stdout.isatty() else _PAGE)
    results: dict[str, object] = {"python": platform.python_version()}
    findings = None
    if options.in_vm:
        findings = _found(options)
        results["findings"] = findings.lines
        for table in tables.of(findings):
            console.print(table.rich())
        for line in tables.rest(findings):
            console.print(line)
    if findings is None or options.write_docs:
        native = measure(options, NATIVE_PARTS if options.write_docs else options.part or NATIVE_PARTS)
        results |= asdict(native)
        for table in tables.native(native):
            console.print(table.rich())
        if native.slow_flush is not None:
            console.print(tables.slow_flush(native.slow_flush))
        if findings is not None:
            console.print(f"written: {document.write(findings, native)}")
    if options.json:
        print(json.dumps(results))
    return 0


def checked_options() -> argparse.Namespace:
    """Return the options; `in_vm` among them says that parts in the VM are wanted."""
    made = parser()
    options = made.parse_args()
    options.in_vm = options.vm or options.file is not None or options.write_docs
    guest.check_parts(made, options, guest.PARTS if options.in_vm else NATIVE_PARTS)
    if not options.in_vm and (options.peer or options.workload or options.quick):
        made.error("--peer, --workload and --quick need --vm")
    if not 1 <= options.depth <= command_path.BATCH:
        made.error(f"--depth is 1 to {command_path.BATCH}")
    return options


def _found(options: argparse.Namespace) -> Findings:
    """Run the VM, or read what an earlier run has found."""
    if options.file is None:
        return campaign.run(options, Console(stderr=True))
    text: str = options.file.read_text()
    return Findings.load(text)


def measure(options: argparse.Namespace, parts: Sequence[str]) -> Native:
    """Run the measurements that need no kernel."""
    measured = Native()
    with Console(stderr=True).status("measuring") as status:
        for row in chain(
            command_path.rows() if "commands" in parts else (),
            remote.rows() if "nbd" in parts else (),
            rbd.rows() if "rbd" in parts else (),
        ):
            measured.rows.append(row)
            status.update(f"measured {row.name}")
        if "flush" in parts:
            status.update("measuring reads beside a slow flush")
            measured.slow_flush = slow_flush.measure()
        if "stacks" in parts:
            for found in stacks.rows(options.stack or (), options.depth):
                measured.stacks.append(found)
                status.update(f"measured {found.stack}: {found.command}")
    return measured


if __name__ == "__main__":
    sys.exit(main())
