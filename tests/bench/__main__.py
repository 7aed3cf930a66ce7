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

from tests.bench import (
    command_path,
    document,
    guests_page,
    http,
    layers,
    qemu,
    rbd,
    remote,
    slow_flush,
    stacks_page,
    tables,
)
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
        help=f"natively and in a VM, and write {document.FOLDER.relative_to(campaign.ROOT)}; with --part "
        "stacks or peers: only that, and its page",
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
    findings = _found(options) if options.in_vm else None
    native = measure(options, options.native_parts)
    for table in [*(tables.of(findings) if findings else ()), *tables.native(native)]:
        console.print(table.rich())
    for line in [*(tables.rest(findings) if findings else ()), *tables.slow_flush(native)]:
        console.print(line)
    if options.write_docs:
        console.print(f"written: {write_docs(options, findings, native)}")
    if options.json:
        lines = {"findings": findings.lines} if findings else {}
        print(json.dumps({"python": platform.python_version(), **lines, **asdict(native)}))
    return 0


def checked_options() -> argparse.Namespace:
    """Return the options, with `in_vm` and `native_parts` for the measurements that are wanted."""
    made = parser()
    options = made.parse_args()
    everything = options.write_docs and not options.part
    vm = options.vm or options.file is not None
    options.in_vm = vm or everything
    guest.check_parts(made, options, guest.PARTS if vm else NATIVE_PARTS)
    options.native_parts = (options.part or NATIVE_PARTS) if not vm or everything else ()
    if not options.in_vm and (options.peer or options.workload or options.quick):
        made.error("--peer, --workload and --quick need --vm")
    if options.write_docs and options.part not in (None, ["stacks"], ["peers"]):
        made.error("--write-docs writes all, or --part stacks, or --part peers")
    if not 1 <= options.depth <= command_path.BATCH:
        made.error(f"--depth is 1 to {command_path.BATCH}")
    return options


def write_docs(options: argparse.Namespace, findings: Findings | None, native: Native) -> Path:
    """Write the page of what was measured; return it."""
    machine = "plain" if options.plain else options.runner
    if findings is None:
        return stacks_page.write_native(native.stacks, campaign.load())
    if options.part == ["stacks"]:
        return stacks_page.write_machine(findings, machine)
    if options.part == ["peers"]:
        return guests_page.write_guest(findings, machine)
    return document.write(findings, native)


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
            layers.rows() if "layers" in parts else (),
            remote.rows() if "nbd" in parts else (),
            rbd.rows() if "rbd" in parts else (),
            http.rows() if "http" in parts else (),
            qemu.rows() if "qemu" in parts else (),
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
