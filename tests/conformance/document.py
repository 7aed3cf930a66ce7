"""docs/conformance.md: counts beside those of other targets, and reasons of tests that do not pass."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.conformance.campaign import Campaign, Lane
from tests.conformance.limits import known
from tests.conformance.profiles import FIRST, PROFILES
from tests.conformance.verdict import OUTCOMES, Verdict

PATH: Final = Path(__file__).resolve().parents[2] / "docs/conformance.md"

_PEERS: Final = (
    ("tcmu-runner, file handler", "`/dev/sg`", 66, 30, 133, 1),
    ("scsi_debug", "`/dev/sg`", 73, 35, 120, 2),
    ("LIO fileio, in the kernel", "`/dev/sg`", 104, 7, 104, 1),
    ("LIO fileio, in the kernel", "iSCSI", 119, 23, 88, 0),
    ("tgt, in user space", "iSCSI", 166, 12, 52, 0),
)
"""Measured with the same program, kernel and thin provisioning: name, transport, then as OUTCOMES."""
_NAMES: Final = {"sg": "`/dev/sg`", "iscsi": "iSCSI"}
_HEADINGS: Final = {"crashed": "tool crashed"}
_HEAD: Final = """\
# SCSI conformance

Results of libiscsi's `iscsi-test-cu` (Debian's package `libiscsi-bin`), an independent test program, for
disks that `vscsitarget` serves on a real kernel. `./dev conformance --write-docs` writes this page, from
one run in a VM or from the results of several (`--json`, then `--from`).

- Each of the {tests} tests runs in a process of its own, with `--dataloss --allow-sanitize`.
- `/dev/sg` is the disk over tcm_loop. iSCSI is the same backstore behind the kernel's own
  iSCSI target on 127.0.0.1, for tests that support no other transport.
- A skipped test has not passed, though CUnit counts it as passed. A test that does nothing and gives no
  reason counts as skipped too.
- Every test is run on the kind of disk called {first}. Another kind of disk is tested with those
  tests only that do not pass there.
- The tests of MultipathIO get two paths: two HBAs with the same disk, two iSCSI sessions.
- Sanitize.Reset needs a sanitize that takes seconds: it gets the same disk, limited to 1 MiB/s.
- The other targets were measured with one path, which skips MultipathIO, and silent skips counted as
  passed. For LIO fileio over `/dev/sg`, passed and skipped are approximate.

Linux {kernel}. Over `/dev/sg`, {sg_some} tests pass on at least one kind of disk; over iSCSI, {iscsi_some}.

"""


def text(campaign: Campaign) -> str:
    """Return the page for a run of all tests on all kinds of disk, over all transports."""
    head = _HEAD.format(
        tests=len(campaign.tests),
        first=FIRST,
        kernel=campaign.kernel,
        sg_some=len(campaign.passed_somewhere("sg")),
        iscsi_some=len(campaign.passed_somewhere("iscsi")),
    )
    transports = list(dict.fromkeys(transport for _, transport in campaign.lanes))
    lines = [*_disks(campaign), *_counts(campaign)]
    for transport in transports:
        lines += _reasons(campaign, campaign.best(transport))
    return head + "\n".join([*lines, *_failures(campaign)]) + "\n"


def _disks(campaign: Campaign) -> Iterator[str]:
    """Yield the table of the kinds of disk."""
    yield from ("| kind of disk | command |", "|---|---|")
    for name in dict.fromkeys(profile for profile, _ in campaign.lanes):
        profile = PROFILES[name]
        stack = shlex.quote(profile.stack.format(image="FILE"))
        yield _row(name, f"`{' '.join(('vscsitarget', 'id=N', '-files', stack, *profile.options))}`")


def _counts(campaign: Campaign) -> Iterator[str]:
    """Yield the table of the counts."""
    yield from ("", "## Counts", "")
    yield _row("target", "over", *(_HEADINGS.get(outcome, outcome) for outcome in OUTCOMES))
    yield "|---|---|---:|---:|---:|---:|"
    for name, way, *numbers in _PEERS:
        yield _row(name, way, *map(str, numbers))
    for lane in campaign.lanes:
        found = campaign.counts(lane)
        some = "" if found.total() == len(campaign.tests) else f" ({found.total()} tests)"
        yield _row(
            f"**vscsihba**, {lane[0]}{some}",
            _NAMES[lane[1]],
            *(str(found[outcome]) for outcome in OUTCOMES),
        )


def _reasons(campaign: Campaign, lane: Lane) -> Iterator[str]:
    """Yield the table of tests that do not pass on the best kind of disk of a transport."""
    profile, transport = lane
    yield from ("", f"## Tests that do not pass over {_NAMES[transport]}, {profile}", "")
    yield from ("| test | outcome | reason | passes on |", "|---|---|---|---|")
    for verdict in campaign.of(lane):
        if verdict.outcome != "passed":
            passes_on = campaign.passing_lane(transport, verdict.test)
            yield _row(verdict.test, verdict.outcome, _why(verdict), passes_on)


def _failures(campaign: Campaign) -> Iterator[str]:
    """Yield the table of tests that fail on other kinds of disk only."""
    best = {transport: campaign.best(transport) for _, transport in campaign.lanes}
    told = {
        (verdict.transport, verdict.test)
        for lane in best.values()
        for verdict in campaign.of(lane)
        if verdict.outcome in ("failed", "crashed")
    }
    yield from ("", "## Failures on other kinds of disk", "")
    yield from ("| test | kind of disk | over | reason |", "|---|---|---|---|")
    for verdict, _ in campaign.failures():
        if (verdict.transport, verdict.test) not in told:
            yield _row(verdict.test, verdict.profile, _NAMES[verdict.transport], _why(verdict))


def _why(verdict: Verdict) -> str:
    if limit := known(verdict):
        return f"{limit.reason} ({limit.source})"
    return "; ".join(verdict.reasons)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
