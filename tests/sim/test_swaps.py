"""The judgement of COMPARE AND WRITE: what is linearizable passes, and nothing else."""

import pytest

from tests.sim.history import HistoryError, stamped
from tests.sim.swaps import Cell

A, B, C, D = (stamped(number, 0) for number in range(4))


def test_requests_one_after_the_other() -> None:
    cell = Cell(A)
    cell.end(cell.begin(A, B), True)
    began = cell.tick()
    cell.saw(B, began)
    cell.end(cell.begin(A, C), False)
    cell.end(cell.begin(B, D), True)
    cell.judge(D)


def test_a_request_whose_fate_is_not_known_may_have_happened_or_not() -> None:
    for last in (A, B):
        cell = Cell(A)
        cell.end(cell.begin(A, B), None)
        cell.judge(last)


def test_two_requests_cannot_both_replace_one_content() -> None:
    cell = Cell(A)
    one, other = cell.begin(A, B), cell.begin(A, C)
    cell.end(one, True)
    cell.end(other, True)
    with pytest.raises(HistoryError, match="acknowledged and has no effect"):
        cell.judge(C)


def test_an_acknowledged_request_stays() -> None:
    cell = Cell(A)
    cell.end(cell.begin(A, B), True)
    with pytest.raises(HistoryError, match="acknowledged and has no effect"):
        cell.judge(A)


def test_a_torn_content_is_nobodys() -> None:
    cell = Cell(A)
    cell.end(cell.begin(A, B), None)
    with pytest.raises(HistoryError, match="no COMPARE AND WRITE has written"):
        cell.judge(B[:256] + A[256:])


def test_a_read_of_an_older_content_is_stale() -> None:
    cell = Cell(A)
    cell.end(cell.begin(A, B), True)
    cell.saw(A, cell.tick())
    with pytest.raises(HistoryError, match="was not there then"):
        cell.judge(B)


def test_a_read_may_not_be_ahead_of_the_request() -> None:
    cell = Cell(A)
    cell.saw(B, cell.tick())
    cell.end(cell.begin(A, B), True)
    with pytest.raises(HistoryError, match="was not there then"):
        cell.judge(B)


def test_a_miscompare_of_what_is_there_is_wrong() -> None:
    cell = Cell(A)
    cell.end(cell.begin(A, B), False)
    with pytest.raises(HistoryError, match="although the content was there"):
        cell.judge(A)


def test_an_order_against_time_is_wrong() -> None:
    cell = Cell(A)
    later = cell.begin(B, C)
    cell.end(later, True)
    cell.end(cell.begin(A, B), True)
    with pytest.raises(HistoryError, match="came after one that began later"):
        cell.judge(C)
