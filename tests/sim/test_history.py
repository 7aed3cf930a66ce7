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
    for sectors in (COUNT - 1, COUNT):
        told.end_resize(told.begin_resize(sectors), sectors, acknowledged=True)
    told.check(COUNT - 1, ZEROES)
    with pytest.raises(HistoryError, match=f"sector {COUNT - 1}"):
        told.check(COUNT - 1, stamped(1, COUNT - 1))


def test_a_failed_shrink_may_have_made_zeroes_of_the_sectors_to_be_cut_off() -> None:
    for found in (ZEROES, first(COUNT - 1)):
        told = history()
        told.end_resize(told.begin_resize(COUNT - 1), COUNT - 1, acknowledged=False)
        told.check(COUNT - 2, first(COUNT - 2) + found)
        with pytest.raises(HistoryError, match=f"sector {COUNT - 2}"):
            told.check(COUNT - 2, ZEROES + found)


@pytest.mark.parametrize("sectors", [COUNT - 1, COUNT + 1])
def test_a_resize_that_was_acknowledged_is_not_undone_by_a_power_cut(sectors: int) -> None:
    told = history()
    told.end_resize(told.begin_resize(sectors), sectors, acknowledged=True)
    told.cut_power()
    with pytest.raises(HistoryError, match=f"the disk has {COUNT} sectors, not {sectors}"):
        told.opened(COUNT)
    told.opened(sectors)


def test_a_resize_without_an_answer_may_be_undone_until_something_is_flushed() -> None:
    told = history()
    told.begin_resize(COUNT - 1)
    told.stop()
    told.opened(COUNT - 1)  # after kill -9
    told.stop()
    with pytest.raises(HistoryError, match=f"the disk has {COUNT} sectors"):
        told.opened(COUNT)
    told.cut_power()
    told.opened(COUNT)
    told.flushed(told.begin_flush())
    told.cut_power()
    with pytest.raises(HistoryError, match=f"the disk has {COUNT - 1} sectors"):
        told.opened(COUNT - 1)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_failed_flush_of_a_resize_is_no_loss_once_a_later_flush_has_succeeded(flushed: bool) -> None:
    seen = history()
    seen.flush_of_others_failed()
    if flushed:
        seen.flushed(seen.begin_flush())
    assert (seen.untold is None) == flushed
