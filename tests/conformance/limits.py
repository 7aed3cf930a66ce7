"""Tests that cannot pass over a transport with any disk, and the file that causes it.

A failure in this list does not fail a run, and its reason replaces that of the tool. A fault of this
project is never listed: it is repaired.
"""

import fnmatch
from dataclasses import dataclass
from typing import Final

from tests.conformance.verdict import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Limit:
    """The reason for which some tests cannot pass.

    Attributes:
        transports: ``sg``, ``iscsi``.
        tests: Pattern of the tests' names.
        outcome: Their outcome; another one is a failure.
        reason: One sentence.
        source: The file that causes it: of the kernel's tree, or of libiscsi's.
        profiles: Pattern of the kinds of disk.
    """

    transports: tuple[str, ...]
    tests: str
    outcome: Outcome
    reason: str
    source: str
    profiles: str = "*"


LIMITS: Final = (
    Limit(
        ("sg",),
        "Sanitize.OverwriteReserved",
        "crashed",
        "the tool uses an iSCSI session that it does not have, and crashes",
        "libiscsi test-tool/test_sanitize_overwrite_reserved.c",
    ),
    Limit(
        ("sg", "iscsi"),
        "GetLBAStatus.UnmapSingle",
        "failed",
        "the tool asks for LBA i+1 and expects i+8: it confuses physical with logical blocks",
        "libiscsi test-tool/test_get_lba_status_unmap_single.c",
        profiles="512e",
    ),
    Limit(
        ("sg", "iscsi"),
        "WriteSame1?.ZeroBlocks",
        "failed",
        "the tool sends a command with two errors, and expects the other one to be reported",
        "libiscsi test-tool/test_writesame10_0blocks.c",
        profiles="read-only",
    ),
    Limit(
        ("iscsi",),
        "iSCSIResiduals.Read*",
        "failed",
        "TCMU can report that less data was sent than expected, not that the CDB asked for more",
        "drivers/target/target_core_user.c",
    ),
    Limit(
        ("iscsi",),
        "iSCSIResiduals.Write*",
        "failed",
        "TCMU cannot report how much of the data-out was used",
        "drivers/target/target_core_user.c",
    ),
    Limit(
        ("iscsi",),
        "iSCSIdatasn.iSCSIDataSnInvalid",
        "failed",
        "the kernel's iSCSI target accepts a Data-Out whose DataSN is -1",
        "drivers/target/iscsi/iscsi_target_erl0.c",
    ),
    Limit(
        ("iscsi",),
        "iSCSITMF.LUNResetSimpleAsync",
        "failed",
        "the tool checks the response to its reset without waiting for it",
        "libiscsi test-tool/test_async_lu_reset_simple.c",
    ),
    Limit(
        ("iscsi",),
        "Reserve6.Logout",
        "failed",
        "on a busy machine the kernel ends a session, and its reservation, some time after the logout",
        "drivers/target/iscsi/iscsi_target.c",
    ),
    Limit(
        ("iscsi",),
        "Reserve6.Target*Reset",
        "skipped",
        "the kernel's iSCSI target lets no initiator reset the whole target",
        "drivers/target/iscsi/iscsi_target_tmr.c",
    ),
    Limit(
        ("sg",),
        "*.Async",
        "skipped",
        "the tool runs this test over iSCSI only, and gives no reason",
        "libiscsi test-tool/test_async_read.c",
    ),
    Limit(
        ("sg",),
        "iSCSITMF.*",
        "skipped",
        "the tool runs this test over iSCSI only, and gives no reason",
        "libiscsi test-tool/test_async_abort_simple.c",
    ),
)


def known(verdict: Verdict) -> Limit | None:
    """Return why a test cannot pass over its transport, None when nothing explains its outcome."""
    for limit in LIMITS:
        if (
            verdict.transport in limit.transports
            and verdict.outcome == limit.outcome
            and fnmatch.fnmatchcase(verdict.test, limit.tests)
            and fnmatch.fnmatchcase(verdict.profile, limit.profiles)
        ):
            return limit
    return None
