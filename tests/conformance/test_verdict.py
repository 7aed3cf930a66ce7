"""Verdicts read from the tool's output, and the sums of a run."""

import json

import pytest

from tests.conformance import limits, profiles
from tests.conformance.campaign import Campaign
from tests.conformance.document import text
from tests.conformance.report import counts
from tests.conformance.verdict import Verdict, judge

HEAD = "    Send INQUIRY\n    [SKIPPED] REPORT_SUPPORTED_OPCODES is not implemented.\n\nSuite: S\n"
FAILED = """  Test: T ...
    Send X
    [FAILED] X command failed
FAILED
    1. test_x.c:7  - CU_ASSERT_EQUAL(_r,0)
    2. test_x.c:7  - CU_ASSERT_EQUAL(_r,0)    Send PRIN/READ_KEYS
"""
PASSED = """  Test: T ...
    Send X
passed    Send PRIN/READ_KEYS
    [FAILED] PRIN: RESERVATION CONFLICT
"""
TAIL = "\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n"


@pytest.mark.parametrize(
    ("body", "code", "outcome", "reasons"),
    [
        ("  Test: T ...\n    Send READ10\n    [OK] READ10 returned SUCCESS\npassed\n", 0, "passed", ()),
        ("  Test: T ...    [SKIPPED] Not an iSCSI device.\npassed\n", 0, "skipped", ("Not an iSCSI device",)),
        ("  Test: T ...passed\n", 0, "skipped", ("the test did nothing, and gave no reason",)),
        (FAILED, 1, "failed", ("X command failed", "test_x.c:7: CU_ASSERT_EQUAL(_r,0)")),
        (PASSED, 0, "passed", ()),
        ("  Test: T ...    READ10 dispatched: 1 of 9\npassed\n", 0, "passed", ()),
        ("  Test: T ...    WRITE10 queued: (ITT=1)\n    dispatched\npassed\n", 0, "passed", ()),
    ],
    ids=["passed", "skipped", "silent", "failed", "failure-while-clearing-up", "many-at-once", "queued"],
)
def test_the_lines_after_the_suite_decide(
    body: str, code: int, outcome: str, reasons: tuple[str, ...]
) -> None:
    assert judge(HEAD + body + TAIL, code) == (outcome, reasons)


def test_a_tool_that_dies_or_gives_up_is_a_crash() -> None:
    assert judge(HEAD + "  Test: T ...\n    Send X\n", -11) == (
        "crashed",
        ("the tool was ended by signal 11", "Send X"),
    )
    assert judge("Failed to connect to SCSI device 0\n", 255) == (
        "crashed",
        ("the tool gave up before the test", "Failed to connect to SCSI device 0"),
    )


def test_patterns_name_families_and_tests() -> None:
    tests = ["Read10.Simple", "Read10.DpoFua", "Write10.DpoFua"]
    assert profiles.selected(tests, []) == tests
    assert profiles.selected(tests, ["Read10"]) == tests[:2]
    assert profiles.selected(tests, ["*.DpoFua"]) == tests[1:]
    assert profiles.selected(tests, ["Write12"]) == []


def test_a_run_counts_what_passed_and_excuses_only_what_is_known() -> None:
    made = Campaign.planned(
        [("512-thin", "sg"), ("512e", "sg")], ["Read10.Simple", "Sanitize.OverwriteReserved"]
    )
    made.kernel = "6.1"
    for verdict in (
        Verdict("512-thin", "sg", "Read10.Simple", "passed"),
        Verdict("512-thin", "sg", "Sanitize.OverwriteReserved", "crashed", ("signal 11",)),
        Verdict("512e", "sg", "Read10.Simple", "skipped", ("no | reason",)),
    ):
        made.add(verdict.document())
    assert made.missing == {("512e", "sg", "Sanitize.OverwriteReserved")}
    assert not made.clean()
    made.add(Verdict("512e", "sg", "Sanitize.OverwriteReserved", "skipped").document())
    assert made.clean()
    assert made.best("sg") == ("512-thin", "sg")
    assert made.passed_somewhere("sg") == {"Read10.Simple"}
    assert counts(made).row_count == 3
    again = Campaign.load(json.dumps(made.document()))
    assert again == made
    assert "| Sanitize.OverwriteReserved | crashed | the tool uses" in text(again)
    made.add(Verdict("512e", "sg", "Read10.Simple", "failed", ("READ10 failed",)).document())
    assert not made.clean()


def test_several_runs_are_put_together_and_the_later_verdict_counts() -> None:
    first = Campaign.planned([("4kn", "sg"), ("512-thin", "iscsi")], ["Read10.Simple"])
    first.add(Verdict("4kn", "sg", "Read10.Simple", "failed", ("why",)).document())
    second = Campaign.planned([("4kn", "sg"), ("512-thin", "sg")], ["Read10.Simple"])
    second.add(Verdict("4kn", "sg", "Read10.Simple", "passed").document())
    both = Campaign.together([first, second])
    assert both.lanes == [("512-thin", "sg"), ("4kn", "sg"), ("512-thin", "iscsi")]
    assert both.failures() == []
    assert both.missing == {("512-thin", "sg", "Read10.Simple"), ("512-thin", "iscsi", "Read10.Simple")}
    assert both.passing_lane("sg", "Read10.Simple") == "4kn"
    first.kernel = "6.12"
    second.kernel = "6.1"
    with pytest.raises(ValueError, match=r"two kernels, 6\.12 and 6\.1"):
        Campaign.together([first, second])


def test_the_tables_need_all_on_the_first_kind_of_disk_and_elsewhere_what_does_not_pass_there() -> None:
    tests = ["Read10.Simple", "NoMedia.NoMediaSBC"]
    made = Campaign.planned([(profiles.FIRST, transport) for transport in profiles.TRANSPORTS], tests)
    assert len(made.lacking(tests)) == len(profiles.LANES) * 2
    for transport in profiles.TRANSPORTS:
        made.add(Verdict(profiles.FIRST, transport, "Read10.Simple", "passed").document())
        made.add(Verdict(profiles.FIRST, transport, "NoMedia.NoMediaSBC", "skipped").document())
    assert made.rest("sg", tests) == ["NoMedia.NoMediaSBC"]
    assert {test for _, _, test in made.lacking(tests)} == {"NoMedia.NoMediaSBC"}
    assert len(made.lacking(tests)) == len(profiles.LANES) - 2
    assert "**vscsihba**, 512-thin |" in text(made)
    made.lanes.append(("removable", "sg"))
    made.add(Verdict("removable", "sg", "NoMedia.NoMediaSBC", "passed").document())
    assert "**vscsihba**, removable (1 tests) |" in text(made)
    assert "| NoMedia.NoMediaSBC | skipped |  | removable |" in text(made)


def test_the_page_tells_what_fails_only_elsewhere() -> None:
    made = Campaign([("512-thin", "sg"), ("512e", "sg")], ["GetLBAStatus.UnmapSingle"], "6.1")
    made.add(Verdict("512-thin", "sg", "GetLBAStatus.UnmapSingle", "passed").document())
    made.add(Verdict("512e", "sg", "GetLBAStatus.UnmapSingle", "failed").document())
    best, elsewhere = text(made).split("## Failures on other kinds of disk")
    assert "GetLBAStatus.UnmapSingle" not in best
    assert "| GetLBAStatus.UnmapSingle | 512e | `/dev/sg` | the tool asks for LBA i+1" in elsewhere


def test_a_limit_explains_one_outcome_only() -> None:
    assert limits.known(Verdict("512e", "sg", "Sanitize.OverwriteReserved", "crashed")) is not None
    assert limits.known(Verdict("512e", "sg", "Sanitize.OverwriteReserved", "failed")) is None
    assert limits.known(Verdict("512e", "iscsi", "Sanitize.OverwriteReserved", "crashed")) is None
    assert limits.known(Verdict("512e", "sg", "GetLBAStatus.UnmapSingle", "failed")) is not None
    assert limits.known(Verdict("4kn", "sg", "GetLBAStatus.UnmapSingle", "failed")) is None


def test_every_limit_says_whose_file_is_the_cause() -> None:
    for limit in limits.LIMITS:
        assert limit.source.startswith(("drivers/", "libiscsi ")), limit
        assert set(limit.transports) <= set(profiles.TRANSPORTS), limit
