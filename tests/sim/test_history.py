"""The judgement of reads: each sector may have what its requests leave open, and nothing else."""

import pytest

from tests.sim.history import SECTOR, ZEROES, History, HistoryError, stamped

COUNT = 8


def history() -> History:
    return History(b"".join(bytes([sector]) * SECTOR for sector in range(COUNT)))


def first(sector: int) -> bytes:
    return bytes([sector]) * SECTOR


def test_a_disk_that_nobody_has_written_reads_as_at_first() -> None:
    whole = b"".join(map(first, range(COUNT)))
    history().check(0, whole)
    for sector in range(COUNT):
        wrong = bytearray(whole)
        wrong[sector * SECTOR + 7] ^= 1
        with pytest.raises(HistoryError, match=f"sector {sector} has foreign"):
            history().check(0, bytes(wrong))


@pytest.mark.parametrize("flushed", [False, True])
def test_sectors_beside_a_request_stay_as_they_are(flushed: bool) -> None:
    told = history()
    told.end(told.begin(3, 2), acknowledged=True)
    if flushed:
        told.flushed(told.begin_flush())
    right = [first(0), first(1), first(2), stamped(1, 3), stamped(1, 4), *map(first, range(5, COUNT))]
    told.check(0, b"".join(right))
    for sector in range(COUNT):
        wrong = [b"\xff" * SECTOR if each == sector else content for each, content in enumerate(right)]
        with pytest.raises(HistoryError, match=f"sector {sector} has"):
            told.check(0, b"".join(wrong))
        told.check(sector, right[sector])
    with pytest.raises(HistoryError, match="request 1 of sector 4"):
        told.check(3, stamped(1, 4) + stamped(1, 4))


def test_a_power_cut_leaves_what_was_flushed_and_doubts_the_rest() -> None:
    told = history()
    told.end(told.begin(0, 1), acknowledged=True)
    told.flushed(told.begin_flush())
    told.end(told.begin(1, 1), acknowledged=True)
    told.cut_power()
    for content in (stamped(2, 1), first(1)):
        told.check(0, stamped(1, 0) + content + first(2))
    with pytest.raises(HistoryError, match="sector 0"):
        told.check(0, first(0))


def test_new_sectors_of_a_larger_disk_are_zeroes_again_after_it_was_smaller() -> None:
    told = history()
    told.end(told.begin(COUNT - 1, 1), acknowledged=True, durable=True)
    told.resized(COUNT - 1)
    told.resized(COUNT)
    told.check(COUNT - 1, ZEROES)
    with pytest.raises(HistoryError, match=f"sector {COUNT - 1}"):
        told.check(COUNT - 1, stamped(1, COUNT - 1))
