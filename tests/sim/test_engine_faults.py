"""Every call of an engine fails in every way, and its journal is damaged: nothing promised is lost."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from tests.sim.engine_faults import DAMAGES, EngineLane
from tests.sim.exhaustive import Counting
from tests.sim.layers import LAYERS
from vscsihba.loopback import Loopback
from vscsihba.scsi import FailedFlush

LONG = pytest.mark.timeout(900)  # on a machine that is busy with other things


@LONG
def test_every_call_of_an_engine_may_fail_once(root: Path) -> None:
    lane = EngineLane(LAYERS["file"], root)
    findings = [finding for point in lane.sample(3) if (finding := lane.strike(point)) is not None]
    shown = [
        f"./dev sim --point {each.point} --trace engine: {each.struck}: {each.message}" for each in findings
    ]
    assert not findings, "\n".join(shown[:5])


def test_the_faults_reach_every_file_of_an_engine(root: Path) -> None:
    struck: set[str] = set()

    def strike(_plan: Counting, _number: int, kind: str, path: str) -> None:
        struck.add(f"{kind} {Path(path).suffix}")

    with mock.patch.object(Counting, "strike", strike):
        EngineLane(LAYERS["file"], root).points()
    assert struck >= {
        "lock .lock",  # of the LUN
        *("open .unflushed", "unlink .unflushed"),  # the record of the last flush
        *("allocate .new", "write .new", "rename .new", "open .journal", "read .journal", "map .journal"),
        *("sync .img", "write .img", "truncate .img"),
        "open .json",  # the note of the LUN, and its saved mode pages
        *("thread ", "poll "),
    }


def test_a_failed_flush_of_a_resize_that_is_told_to_nobody_is_found(root: Path) -> None:
    lane = EngineLane(LAYERS["file"], root)
    points = [replace(point, end="kill") for point in lane.points() if point.fault.how == "EIO"]
    with mock.patch.object(FailedFlush, "note_failure"):
        assert any(lane.strike(point) is not None for point in reversed(points))


@LONG
def test_a_damaged_journal_loses_nothing_that_was_acknowledged(root: Path) -> None:
    lane = EngineLane(LAYERS["file"], root)
    deaths = lane.deaths_under_way()
    with mock.patch.object(Loopback, "reset_ring", autospec=True, side_effect=Loopback.reset_ring) as reset:
        for number, damage in enumerate(DAMAGES * 4):
            finding = lane.strike(deaths[number * 7 % len(deaths)], damage=damage)
            assert finding is None, f"{finding.point} with damage {number % len(DAMAGES)}: {finding.message}"
    assert reset.call_count > len(DAMAGES), "damage is noticed"
