"""libiscsi's conformance tests against our disks, the quick part: nothing fails, and no fewer pass than did.

All of them, on all kinds of disk, are run by ``./dev conformance``; docs/conformance.md has its result.
"""

from pathlib import Path

import pytest

from tests.conformance import profiles
from tests.conformance.disk import Disk
from tests.conformance.guest import verdicts
from tests.conformance.limits import known

SLOW = ("*.Simple", "*.BeyondEol", "*.Mismatch*")
"""Tests that send hundreds of commands: they are run for some families only."""
BASIC = (
    "Inquiry",
    "Read10",
    "Read16",
    "ReadCapacity10",
    "ReadCapacity16",
    "TestUnitReady",
    "Write10",
    "Write16",
)
"""The families that a disk cannot do without: all of their tests are run."""


def quick(*patterns: str, without: tuple[str, ...] = ()) -> list[str]:
    """Return the tests that the patterns name, less those of `without`."""
    tests = profiles.listed()
    left_out = profiles.selected(tests, list(without)) if without else []
    return [test for test in profiles.selected(tests, list(patterns)) if test not in left_out]


@pytest.mark.parametrize(
    ("profile", "transport", "patterns", "without", "passing"),
    [
        ("512-thin", "sg", BASIC, (), 32),
        pytest.param(
            *("512-thin", "sg", ("*",), (*SLOW, "MultipathIO", "Sanitize"), 94), marks=pytest.mark.long
        ),
        pytest.param(
            *("512e", "sg", ("WriteSame*.Unmap*", "*.InvalidDataOutSize"), (), 10), marks=pytest.mark.long
        ),
        ("4kn", "sg", ("Read16.Simple", "Write16.Simple", "Inquiry", "ReadCapacity*", "Unmap"), (), 17),
        ("4kn", "sg", ("WriteAtomic16",), (), 5),
        ("read-only", "sg", ("ReadOnly", "Inquiry"), (), 7),
        ("removable", "sg", ("StartStopUnit", "NoMedia", "PreventAllow"), (), 6),
        # Not Reserve6: the kernel ends the session of the test before a while after its logout, and until
        # then the reservation is still held.
        ("512-thin", "iscsi", ("ProutReserve", "iSCSI*", "PrinReadKeys"), (), 17),
        pytest.param(*("512-thin", "iscsi", ("*.Async", "Sanitize.Reset"), (), 3), marks=pytest.mark.long),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_fails(
    profile: str,
    transport: str,
    patterns: tuple[str, ...],
    without: tuple[str, ...],
    passing: int,
    scratch: Path,
) -> None:
    tests = quick(*patterns, without=without)
    with Disk(profiles.PROFILES[profile], 0, scratch) as disk:
        found = list(verdicts(disk, transport, tests))
    assert [verdict.test for verdict in found] == tests
    assert [
        (verdict.test, verdict.reasons)
        for verdict in found
        if verdict.outcome in ("failed", "crashed") and not known(verdict)
    ] == []
    assert sum(verdict.outcome == "passed" for verdict in found) >= passing
