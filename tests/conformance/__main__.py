"""``./dev conformance``: run libiscsi's conformance tests in a virtual machine and say how they came out.

A run of all takes hours on a slow machine. So some kinds of disk can be run at a time, each run's verdicts be
kept in a file (``--json``), and the files be put together (``--from``).

Exit codes: 0 nothing failed but what the transport causes; 1 something did, or was not run; 2 wrong usage.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from tests.conformance import document, profiles, report
from tests.conformance.campaign import Campaign, Lane

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build/conformance"
"""What the tool wrote, a file for each test."""
_SECONDS_A_TEST = 20
_SECONDS_TO_BOOT = 300


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="./dev conformance",
        description="Run libiscsi's SCSI conformance tests on disks of ours, in a VM: all kinds over sg, and "
        "over iscsi those that have something to add.",
    )
    made.add_argument(
        "--profile", action="append", choices=profiles.PROFILES, help="kind of disk; may be repeated"
    )
    made.add_argument(
        "--transport", action="append", choices=profiles.TRANSPORTS, help="way to it; may be repeated"
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
        "--from",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        dest="files",
        help="take in the verdicts of an earlier run, as --json printed them, and run only what --profile, "
        "--transport and --test name; may be repeated",
    )
    made.add_argument(
        "--rest", action="store_true", help="only the tests that pass nowhere in the verdicts of --from"
    )
    return made


def main() -> int:
    """Run the suites named, add earlier results, and report."""
    made = parser()
    options = made.parse_args()
    try:
        earlier = Campaign.together(Campaign.load(file.read_text()) for file in options.files)
        plan = _plan(made, options, earlier)
        if options.write_docs:
            _demand_all(made, earlier, plan)
        campaign = Campaign.together([earlier, _run(plan)] if plan.lanes else [earlier])
    except (OSError, ValueError, KeyError) as error:
        made.error(f"--from: {error}")
    return _report(campaign, options)


def _plan(made: argparse.ArgumentParser, options: argparse.Namespace, earlier: Campaign) -> Campaign:
    """Return the tests to run: none if there are verdicts and none is named."""
    tests = profiles.selected(profiles.listed(), options.test)
    if not tests:
        made.error(f"no test is called {' or '.join(options.test)}: iscsi-test-cu --list names them")
    lanes: list[Lane] = list(profiles.LANES)
    if options.profile or options.transport:
        lanes = [
            (profile, transport)
            for transport in options.transport or profiles.TRANSPORTS
            for profile in options.profile or profiles.PROFILES
        ]
    elif options.files and not (options.test or options.rest):
        return Campaign.planned([], [])
    if options.rest:
        left = {test for _, transport in lanes for test in earlier.rest(transport, tests)}
        tests = [test for test in tests if test in left]
    return Campaign.planned(lanes, tests)


def _demand_all(made: argparse.ArgumentParser, earlier: Campaign, plan: Campaign) -> None:
    """Refuse to write tables with holes."""
    lacking = earlier.lacking(profiles.listed()) - plan.missing
    if lacking:
        lanes = sorted({f"{profile} over {transport}" for profile, transport, _ in lacking})
        made.error(f"--write-docs needs {len(lacking)} more verdicts, on {', '.join(lanes)}")


def _report(campaign: Campaign, options: argparse.Namespace) -> int:
    """Print the verdicts, and write the page if that was asked for; return the exit code."""
    console = Console(stderr=options.json)
    report.print_all(campaign, console)
    if options.json:
        print(json.dumps(campaign.document()))
    if options.write_docs:
        document.PATH.write_text(document.text(campaign))
        console.print(f"written: {document.PATH.relative_to(ROOT)}")
    return 0 if campaign.clean() else 1


def _run(campaign: Campaign) -> Campaign:
    """Start the VM and take in what comes from it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    limit = _SECONDS_TO_BOOT + _SECONDS_A_TEST * len(campaign.missing)
    command = [str(ROOT / "dev"), "vm", "--timeout", str(limit), "--results", str(RESULTS), "--"]
    command += [sys.executable, "-m", "tests.conformance.guest"]
    command += [f"--lane={profile}:{transport}" for profile, transport in campaign.lanes]
    command += [f"--test={test}" for test in campaign.tests]
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
