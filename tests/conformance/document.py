"""docs/conformance.md: the counts beside those of other targets, and why a test does not pass."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.conformance.campaign import Campaign, Lane
from tests.conformance.limits import known
from tests.conformance.verdict import OUTCOMES, Verdict

PATH: Final = Path(__file__).resolve().parents[2] / "docs/conformance.md"

_PEERS: Final = (
    ("tcmu-runner, file handler", "`/dev/sg`", 66, 30, 133, 1),
    ("scsi_debug", "`/dev/sg`", 73, 35, 120, 2),
    ("LIO fileio, in the kernel", "`/dev/sg`", 104, 7, 104, 1),
    ("LIO fileio, in the kernel", "iSCSI", 119, 23, 88, 0),
    ("tgt, in user space", "iSCSI", 166, 12, 52, 0),
)
"""Measured with the same program on the same kernel, thin provisioning on: name, way, then as OUTCOMES."""
_NAMES: Final = {"sg": "`/dev/sg`", "iscsi": "iSCSI"}
_HEAD: Final = """\
# SCSI conformance

What libiscsi's `iscsi-test-cu` (Debian's package `libiscsi-bin`), a test program that is not ours, finds in
disks served by `vscsitarget` on a real kernel. `./dev conformance --write-docs` writes it, from a run in a VM
or from verdicts of several runs, given by `--from`. It has the kinds of disk that were run in whole.

- Each of the {tests} tests runs in a process of its own, with `--dataloss --allow-sanitize`.
- `/dev/sg` is the disk as Linux has it, over tcm_loop. iSCSI is the same backstore behind the kernel's own
  iSCSI target on 127.0.0.1, which shows the disk to tests that speak no other transport.
- A skip is not a pass, though CUnit counts it as one. A test that does nothing and gives no reason counts as
  skipped too.
- The tests of MultipathIO are given two paths: two HBAs with the same disk, two iSCSI sessions.
- The other targets were measured with one path, which skips MultipathIO, and a silent skip counted as passed.
  Of LIO fileio over `/dev/sg`, passed and skipped are near values.

Linux {kernel}. Over `/dev/sg`, {sg_some} tests pass on at least one kind of disk; over iSCSI, {iscsi_some}.

## Counts

| target | over | passed | failed | skipped | tool crashed |
|---|---|---:|---:|---:|---:|
"""


def text(campaign: Campaign) -> str:
    """Return the page for a run of all tests on all kinds of disk, over all transports."""
    head = _HEAD.format(
        tests=len(campaign.tests),
        kernel=campaign.kernel,
        sg_some=len(campaign.passed_somewhere("sg")),
        iscsi_some=len(campaign.passed_somewhere("iscsi")),
    )
    lines = [*_counts(campaign)]
    for transport in dict.fromkeys(transport for _, transport in campaign.lanes):
        lines += _reasons(campaign, campaign.best(transport))
    return head + "\n".join(lines) + "\n"


def _counts(campaign: Campaign) -> Iterator[str]:
    for name, way, *numbers in _PEERS:
        yield _row(name, way, *map(str, numbers))
    for lane in campaign.lanes:
        found = campaign.counts(lane)
        yield _row(
            f"**vscsihba**, {lane[0]}", _NAMES[lane[1]], *(str(found[outcome]) for outcome in OUTCOMES)
        )


def _reasons(campaign: Campaign, lane: Lane) -> Iterator[str]:
    """Yield the table of what does not pass on the best kind of disk of a transport."""
    profile, transport = lane
    elsewhere = {
        verdict.test: verdict.profile
        for verdict in reversed(campaign.verdicts.values())
        if verdict.transport == transport and verdict.outcome == "passed"
    }
    yield ""
    yield f"## What does not pass over {_NAMES[transport]}, {profile}"
    yield ""
    yield "| test | outcome | why | passes on |"
    yield "|---|---|---|---|"
    for verdict in campaign.of(lane):
        if verdict.outcome != "passed":
            yield _row(verdict.test, verdict.outcome, _why(verdict), elsewhere.get(verdict.test, ""))


def _why(verdict: Verdict) -> str:
    if limit := known(verdict):
        return f"{limit.reason} ({limit.source})"
    return "; ".join(verdict.reasons)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
