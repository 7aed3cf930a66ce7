"""``./dev conformance``: run libiscsi's conformance tests in a virtual machine and say how they came out.

Exit codes: 0 nothing failed but what the transport causes; 1 something did, or was not run; 2 wrong usage.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from tests.conformance import document, profiles, report
from tests.conformance.campaign import Campaign

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build/conformance"
"""What the tool wrote, a file for each test."""
_SECONDS_A_TEST = 20
_SECONDS_TO_BOOT = 300


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="./dev conformance",
        description="Run libiscsi's SCSI conformance tests on disks of ours, in a VM.",
    )
    made.add_argument(
        "--profile", action="append", choices=profiles.PROFILES, help="kind of disk (all); may be repeated"
    )
    made.add_argument(
        "--transport", action="append", choices=profiles.TRANSPORTS, help="way to it (both); may be repeated"
    )
    made.add_argument(
        "--test",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only these: Read10, Read10.Simple, '*.DpoFua'; may be repeated",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument("--write-docs", action="store_true", help=f"write {document.PATH.relative_to(ROOT)}")
    made.add_argument(
        "--from", type=Path, metavar="FILE", dest="file", help="run nothing: read what --json printed"
    )
    return made


def main() -> int:
    """Run what was asked for, or read it, and report."""
    made = parser()
    options = made.parse_args()
    if options.write_docs and (options.test or options.profile or options.transport):
        made.error("--write-docs needs all of it: no --profile, --transport or --test")
    console = Console(stderr=options.json)
    campaign = Campaign.load(options.file.read_text()) if options.file else _run(made, options)
    report.print_all(campaign, console)
    if options.json:
        print(json.dumps(campaign.document()))
    if options.write_docs:
        document.PATH.write_text(document.text(campaign))
        console.print(f"written: {document.PATH.relative_to(ROOT)}")
    return 0 if campaign.clean() else 1


def _run(made: argparse.ArgumentParser, options: argparse.Namespace) -> Campaign:
    """Start the VM and take in what comes from it."""
    tests = profiles.selected(profiles.listed(), options.test)
    if not tests:
        made.error(f"no test is called {' or '.join(options.test)}: iscsi-test-cu --list names them")
    lanes = [
        (profile, transport)
        for transport in options.transport or profiles.TRANSPORTS
        for profile in options.profile or profiles.PROFILES
    ]
    campaign = Campaign(lanes, tests)
    RESULTS.mkdir(parents=True, exist_ok=True)
    limit = _SECONDS_TO_BOOT + _SECONDS_A_TEST * len(lanes) * len(tests)
    command = [str(ROOT / "dev"), "vm", "--timeout", str(limit), "--results", str(RESULTS), "--"]
    command += [sys.executable, "-m", "tests.conformance.guest"]
    command += [f"--lane={profile}:{transport}" for profile, transport in lanes]
    command += [f"--test={word}" for word in options.test]
    guest = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        _take(campaign, guest)
    finally:
        guest.terminate()
        guest.wait()
    return campaign


def _take(campaign: Campaign, guest: subprocess.Popen[str]) -> None:
    """Read verdicts until the guest ends, and show how far it is."""
    assert guest.stdout is not None
    with report.progress(Console(stderr=True)) as shown:
        tasks = {
            lane: shown.add_task(" ".join(lane), total=len(campaign.tests), last="")
            for lane in campaign.lanes
        }
        for line in guest.stdout:
            found = json.loads(line)
            if "kernel" in found:
                campaign.kernel = found["kernel"]
                continue
            verdict = campaign.add(found)
            lane = verdict.profile, verdict.transport
            shown.update(tasks[lane], advance=1, last=f"{verdict.test} {verdict.outcome}")
    guest.wait()


if __name__ == "__main__":
    sys.exit(main())
