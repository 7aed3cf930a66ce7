"""Tests that cannot pass over a transport whatever the disk does, and the file that is the cause.

A failure that stands here does not fail a run, and the reason is told in place of the tool's. A failure that
is ours never stands here: it is repaired.
"""

import fnmatch
from dataclasses import dataclass
from typing import Final

from tests.conformance.verdict import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Limit:
    """Why a test cannot pass.

    Attributes:
        transports: ``sg``, ``iscsi``.
        tests: Pattern of the tests' names.
        outcome: Their outcome: another one is not explained by this.
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
        "the tool reaches for an iSCSI session that it does not have, and dies",
        "libiscsi test-tool/test_sanitize_overwrite_reserved.c",
    ),
    Limit(
        ("sg", "iscsi"),
        "GetLBAStatus.UnmapSingle",
        "failed",
        "the tool asks about LBA i+1 and wants to be told of i+8: it takes physical blocks for logical ones",
        "libiscsi test-tool/test_get_lba_status_unmap_single.c",
        profiles="512e",
    ),
    Limit(
        ("sg", "iscsi"),
        "WriteSame1?.ZeroBlocks",
        "failed",
        "the tool sends a command that is wrong in two ways, and wants to be told of the other one first",
        "libiscsi test-tool/test_writesame10_0blocks.c",
        profiles="read-only",
    ),
    Limit(
        ("iscsi",),
        "iSCSIResiduals.Read*",
        "failed",
        "through TCMU a program can say that it gave less than was expected, not that the CDB wanted more",
        "drivers/target/target_core_user.c",
    ),
    Limit(
        ("iscsi",),
        "iSCSIResiduals.Write*",
        "failed",
        "through TCMU a program cannot say how much of the data-out it took",
        "drivers/target/target_core_user.c",
    ),
    Limit(
        ("iscsi",),
        "iSCSIdatasn.iSCSIDataSnInvalid",
        "failed",
        "the kernel's iSCSI target takes a Data-Out whose DataSN is -1",
        "drivers/target/iscsi/iscsi_target_erl0.c",
    ),
    Limit(
        ("iscsi",),
        "iSCSITMF.LUNResetSimpleAsync",
        "failed",
        "the tool looks for the answer to its reset before it has waited for one",
        "libiscsi test-tool/test_async_lu_reset_simple.c",
    ),
    Limit(
        ("iscsi",),
        "Reserve6.Logout",
        "failed",
        "on a busy machine the kernel ends a session, and with it its reservation, a while after the logout",
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
        "the tool does this over iSCSI only, and does not say so",
        "libiscsi test-tool/test_async_read.c",
    ),
    Limit(
        ("sg",),
        "iSCSITMF.*",
        "skipped",
        "the tool does this over iSCSI only, and does not say so",
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
