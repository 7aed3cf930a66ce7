"""A failed flush is reported to dependent commands, with sense data after which Linux does not repeat it."""

import errno

import pytest

from tests.scsi.disk import Disk
from vscsihba.block import Flush, Keep, Unmap, Write, WriteZeroes
from vscsihba.errors import FlushError, NotBegunError
from vscsihba.scsi import Asc, FailedFlush, SenseKey
from vscsihba.scsi.failed_flush import WINDOW

SYNCHRONIZE = "35 00 00000000 00 0000 00"
SYNCHRONIZE_16 = "91 00 0000000000000000 00000000 00 00"
SYNCHRONIZE_IMMED = "35 02 00000000 00 0000 00"
READ_FUA = "28 08 00000000 00 0001 00"
STOP = "1b 00 00 00 00 00"
D_SENSE = ("15 11 00 00 10 00", bytes.fromhex("00000000 0a0a0410 00000000 ffff0000"))
"""MODE SELECT(6) of the Control page, which is saved, and its data."""
LOST = (SenseKey.HARDWARE_ERROR, Asc.WRITE_ERROR)


class Clock:
    """A clock that the test sets, in milliseconds."""

    now = 0

    def __call__(self) -> int:
        return self.now


def failing(disk: Disk, number: int = errno.EIO) -> None:
    """Let the next flushes fail."""
    disk.faults[Flush] = OSError(number, "lost")


def works(disk: Disk) -> None:
    disk.faults.clear()


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ETIMEDOUT, errno.ENOMEM, errno.EAGAIN, errno.ENOTCONN, 0]
)
def test_linux_does_not_send_a_flush_again_that_has_failed(number: int) -> None:
    disk = Disk()
    failing(disk, number)
    assert disk.run(SYNCHRONIZE).condition == LOST


def test_a_flush_without_room_says_so() -> None:
    disk = Disk()
    failing(disk, errno.ENOSPC)
    assert disk.run(SYNCHRONIZE).condition == (
        SenseKey.DATA_PROTECT,
        Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
    )


def test_a_flush_that_was_not_begun_is_sent_again() -> None:
    disk = Disk()
    disk.faults[Flush] = NotBegunError("no thread")
    assert disk.run(SYNCHRONIZE).condition == (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES)
    works(disk)
    assert disk.run(SYNCHRONIZE).good
    assert not disk.lu.failed_flush.pending


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (NotBegunError("no thread"), (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES)),
        (OSError(errno.EIO, "no file"), (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)),
    ],
)
def test_a_mode_page_that_cannot_be_saved_is_no_failure_of_the_medium(
    error: OSError, condition: tuple[SenseKey, Asc]
) -> None:
    disk = Disk()
    disk.faults[Keep] = error
    assert disk.run(*D_SENSE).condition == condition


def test_a_flush_that_was_told_of_its_failure_is_not_told_twice() -> None:
    disk = Disk()
    failing(disk)
    assert disk.run(SYNCHRONIZE).condition == LOST
    works(disk)
    assert disk.run(SYNCHRONIZE).good


@pytest.mark.parametrize("command", [READ_FUA, STOP, SYNCHRONIZE_IMMED])
@pytest.mark.parametrize("next_flush", [SYNCHRONIZE, SYNCHRONIZE_16])
def test_a_failure_that_others_have_met_is_reported_to_the_next_flush(command: str, next_flush: str) -> None:
    disk = Disk()
    failing(disk)
    disk.run(command)
    works(disk)
    disk.lu.take_pending_sense()  # the deferred error, which Linux ignores
    assert disk.run(next_flush).condition == LOST


def test_every_user_of_the_disk_is_told_before_it_is_forgotten() -> None:
    clock, events = Clock(), list[str]()
    flushes = FailedFlush(record=events.append, forget=lambda: events.append("forgotten"), clock=clock)
    disk = Disk(failed_flush=flushes)
    assert disk.run(SYNCHRONIZE).good
    flushes.note("the mirror broke")
    for clock.now in (5, 5 + WINDOW // 2, 5 + WINDOW):
        assert disk.run(SYNCHRONIZE).condition == LOST
        assert events == ["the mirror broke"]
    clock.now = 6 + WINDOW
    assert disk.run(SYNCHRONIZE).good
    assert events == ["the mirror broke", "forgotten"]
    assert disk.run(SYNCHRONIZE).good
    assert len(events) == 2


def test_data_lost_under_an_earlier_engine_is_reported() -> None:
    disk = Disk(failed_flush=FailedFlush(pending=True))
    assert disk.run("28 00 00000000 00 0001 00").good
    assert disk.run(SYNCHRONIZE).condition == LOST
    assert isinstance(disk.operations[-1], Flush), "the flush itself is done all the same"


@pytest.mark.parametrize(
    ("kind", "command", "out"),
    [
        (Write, "2a 08 00000000 00 0001 00", bytes(512)),
        (WriteZeroes, "93 00 0000000000000000 00000008 00 00", bytes(512)),
        (
            Unmap,
            "42 00 00000000 00 0018 00",
            bytes([0, 22, 0, 16, *bytes(4), *bytes(8), 0, 0, 0, 1, *bytes(4)]),
        ),
    ],
)
def test_a_flush_within_another_operation_is_reported_to_the_next_flush(
    kind: type, command: str, out: bytes
) -> None:
    """Linux sends such a command again: what else was lost is in none of its data."""
    reasons: list[str] = []
    disk = Disk(failed_flush=FailedFlush(record=reasons.append))
    disk.faults[kind] = FlushError(errno.EIO, "pages are lost")
    assert not disk.run(command, out).good
    assert reasons == ["a flush failed: [Errno 5] pages are lost"]
    works(disk)
    assert disk.run(command, out).good
    assert disk.run(SYNCHRONIZE).condition == LOST


def test_only_the_failure_of_a_flush_is_noted_of_what_is_no_command() -> None:
    reasons: list[str] = []
    flushes = FailedFlush(record=reasons.append)
    flushes.note_failure("a resize", None)
    flushes.note_failure("a resize", OSError(errno.ENOSPC, "no room"))
    assert not flushes.pending
    flushes.note_failure("a resize", FlushError(errno.EIO, "pages are lost"))
    assert flushes.pending
    assert reasons == ["a flush of a resize failed: [Errno 5] pages are lost"]


def test_an_operation_that_fails_without_a_flush_is_not_reported_to_the_next_one() -> None:
    disk = Disk()
    disk.faults[Write] = OSError(errno.EIO, "a bad sector")
    assert not disk.run("2a 08 00000000 00 0001 00", bytes(512)).good
    works(disk)
    assert disk.run(SYNCHRONIZE).good


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (READ_FUA, None),
        D_SENSE,
    ],
)
def test_a_command_that_does_not_rely_on_a_flush_tells_of_none(command: str, out: bytes | None) -> None:
    disk = Disk(failed_flush=FailedFlush(pending=True))
    assert disk.run(command, out).good
    assert disk.run(SYNCHRONIZE).condition == LOST


def test_a_flush_that_fails_again_is_recorded_anew() -> None:
    reasons: list[str] = []
    disk = Disk(failed_flush=FailedFlush(record=reasons.append))
    failing(disk)
    disk.run(READ_FUA)
    assert reasons == ["a flush failed: [Errno 5] lost"]
