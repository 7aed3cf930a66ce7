"""Acknowledgements, against a link whose answers the test gives."""

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.polling import wait_until
from vscsihba.block import Views
from vscsihba.errors import FlushError
from vscsihba.handlers.base import AsyncVerbs, Done
from vscsihba.handlers.null import NullHandler
from vscsihba.handlers.qemu.logged_verbs import LoggedVerbs
from vscsihba.handlers.qemu.write_log import Change, WriteLog

KIB = 1024


@dataclass
class Sent:
    """A request that the link has."""

    verb: str
    offset: int
    length: int
    done: Done
    fua: bool = False


class Link(NullHandler):
    """A link that keeps requests until the test answers them."""

    def __init__(self) -> None:
        super().__init__(NullHandler.Options(size=1 << 30))
        self.sent: list[Sent] = []
        self.refuses: OSError | None = None
        self._lock = threading.Lock()

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The verbs."""
        return AsyncVerbs(
            read=self._read, write=self._write, flush=self._flush, write_zeroes=self._write_zeroes
        )

    def take(self, verb: str) -> Sent:
        """Return the oldest request, once it is there."""
        wait_until(lambda: bool(self.sent), f"a {verb} was sent", limit=10)
        request = self.sent.pop(0)
        assert request.verb == verb
        return request

    def _add(self, request: Sent) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(request)

    def _read(self, offset: int, views: Views, done: Done) -> None:
        self._add(Sent("read", offset, sum(map(len, views)), done))

    def _write(self, offset: int, views: Views, fua: bool, done: Done) -> None:
        self._add(Sent("write", offset, sum(map(len, views)), done, fua))

    def _flush(self, done: Done) -> None:
        self._add(Sent("flush", 0, 0, done))

    def _write_zeroes(self, offset: int, length: int, may_unmap: bool, fua: bool, done: Done) -> None:
        self._add(Sent("zero" if may_unmap else "zero, allocated", offset, length, done, fua))


class Disk:
    """Verbs over such a link, and the results that they have had."""

    def __init__(self, log: WriteLog | None) -> None:
        self.log = log
        self.link = Link()
        self.stuck = 0
        self.verbs = LoggedVerbs(self.link, log, "image", self._count_stuck)
        self.results: list[OSError | None] = []

    def write(self, data: bytes = b"data", *, fua: bool = False) -> None:
        """Begin a write."""
        self.verbs.write(0, [memoryview(data)], fua, self.results.append)

    def result(self) -> OSError | None:
        """Return the result of the one verb that was begun, once it is there."""
        wait_until(lambda: bool(self.results), "the verb has a result", limit=10)
        return self.results.pop()

    def logged(self) -> list[bytes]:
        """Return the data in the log."""
        assert self.log is not None
        return [bytes(data) for _, data in self.log.changes()]

    def _count_stuck(self) -> None:
        self.stuck += 1


@pytest.fixture
def make() -> Iterator[Callable[..., Disk]]:
    made: list[Disk] = []

    def make(size: int | None = 64 * KIB) -> Disk:
        made.append(Disk(None if size is None else WriteLog("log", about=b"", size=size)))
        return made[-1]

    yield make
    for disk in made:
        disk.verbs.close()
        if disk.log is not None:
            disk.log.drop(disk.log.end)
            disk.log.close()


Make = Callable[..., Disk]


def test_a_write_is_acknowledged_when_it_is_logged(make: Make) -> None:
    disk = make()
    disk.write()
    sent = disk.link.take("write")
    assert not disk.results
    assert disk.logged() == []
    sent.done(None)
    assert disk.results == [None]
    assert disk.logged() == [b"data"]


def test_zeroes_are_logged(make: Make) -> None:
    disk = make()
    disk.verbs.write_zeroes(0, 8, False, False, disk.results.append)
    disk.link.take("zero, allocated").done(None)
    disk.verbs.unmap(8, 8, disk.results.append)
    disk.link.take("zero").done(None)
    assert disk.results == [None, None]
    assert disk.log is not None
    assert [change for change, _ in disk.log.changes()] == [
        Change(0, 8, zero=True),
        Change(8, 8, zero=True, may_unmap=True),
    ]


def test_a_write_that_failed_is_not_logged(make: Make) -> None:
    disk = make()
    disk.write()
    disk.link.take("write").done(OSError(errno.ENOSPC, "full"))
    assert isinstance(disk.result(), OSError)
    assert disk.logged() == []
    assert not disk.stuck


def test_a_request_that_timed_out_ends_the_daemon(make: Make) -> None:
    disk = make()
    disk.write()
    disk.link.take("write").done(TimeoutError(errno.ETIMEDOUT, "slow"))
    assert isinstance(disk.result(), TimeoutError)
    assert disk.stuck == 1


def test_an_answer_of_a_dead_daemon_does_not_count(make: Make) -> None:
    disk = make()
    disk.write()
    sent = disk.link.take("write")
    disk.verbs.died()
    sent.done(None)
    again = disk.link.take("write")
    assert disk.logged() == []
    assert not disk.results
    again.done(None)
    assert disk.result() is None
    assert disk.logged() == [b"data"]


def test_a_request_that_cannot_be_begun_again_fails(make: Make) -> None:
    disk = make()
    disk.write()
    sent = disk.link.take("write")
    disk.verbs.died()
    disk.link.refuses = OSError(errno.EIO, "closed")
    sent.done(None)
    assert disk.result() is disk.link.refuses


def test_a_request_that_is_not_begun_is_not_under_way(make: Make) -> None:
    disk = make()
    disk.link.refuses = OSError(errno.EIO, "closed")
    with pytest.raises(OSError, match="closed"):
        disk.write()
    with pytest.raises(OSError, match="closed"):
        disk.verbs.read(0, [memoryview(bytearray(1))], disk.results.append)
    assert not disk.results
    disk.link.refuses = None
    _pause(disk)


def test_a_flush_clears_the_log_up_to_its_beginning(make: Make) -> None:
    disk = make()
    disk.write(b"one")
    disk.link.take("write").done(None)
    disk.verbs.flush(disk.results.append)
    flush = disk.link.take("flush")
    disk.write(b"two")
    disk.link.take("write").done(None)
    assert disk.results == [None, None]
    flush.done(None)
    wait_until(lambda: len(disk.results) == 3, "the flush has a result")
    assert disk.logged() == [b"two"]


def test_flushes_that_arrive_during_one_share_the_next(make: Make) -> None:
    disk = make()
    disk.verbs.flush(disk.results.append)
    first = disk.link.take("flush")
    for _ in range(3):
        disk.verbs.flush(disk.results.append)
    first.done(None)
    second = disk.link.take("flush")
    assert len(disk.results) == 1
    second.done(None)
    wait_until(lambda: len(disk.results) == 4, "the flushes have results")
    assert not disk.link.sent


def test_a_flush_of_a_dead_daemon_is_begun_again(make: Make) -> None:
    disk = make()
    disk.write()
    disk.link.take("write").done(None)
    assert disk.result() is None
    disk.verbs.flush(disk.results.append)
    flush = disk.link.take("flush")
    disk.verbs.died()
    flush.done(None)
    again = disk.link.take("flush")
    assert disk.logged() == [b"data"]
    assert not disk.results
    again.done(None)
    assert disk.result() is None
    assert disk.logged() == []


def test_no_flush_succeeds_after_one_has_failed(make: Make) -> None:
    disk = make()
    disk.write()
    disk.link.take("write").done(None)
    assert disk.result() is None
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(OSError(errno.EIO, "lost"))
    assert isinstance(disk.result(), FlushError)
    disk.verbs.died()
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(None)
    assert isinstance(disk.result(), FlushError)
    assert disk.logged() == [b"data"]


def test_a_flush_that_cannot_be_begun_fails_and_the_next_one_is_begun(make: Make) -> None:
    disk = make()
    disk.write()
    disk.link.take("write").done(None)
    assert disk.result() is None
    disk.link.refuses = OSError(errno.ENOTCONN, "away")
    disk.verbs.flush(disk.results.append)
    assert disk.result() is disk.link.refuses
    assert disk.logged() == [b"data"]
    disk.link.refuses = None
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(None)
    assert disk.result() is None
    assert disk.logged() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ETIMEDOUT, errno.ENOTCONN])
def test_a_flush_may_succeed_after_one_that_lost_nothing(make: Make, number: int) -> None:
    disk = make()
    disk.write()
    disk.link.take("write").done(None)
    assert disk.result() is None
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(OSError(number, "no"))
    assert not isinstance(disk.result(), FlushError)
    assert disk.logged() == [b"data"]
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(None)
    assert disk.result() is None
    assert disk.logged() == []


def test_fua_is_a_flush(make: Make) -> None:
    disk = make()
    disk.write(fua=True)
    sent = disk.link.take("write")
    assert not sent.fua
    sent.done(None)
    flush = disk.link.take("flush")
    assert not disk.results
    flush.done(None)
    assert disk.result() is None
    assert disk.logged() == []


def test_a_write_without_room_in_the_log_is_flushed(make: Make) -> None:
    disk = make(2)
    disk.write()
    disk.link.take("write").done(None)
    flush = disk.link.take("flush")
    assert not disk.results
    flush.done(None)
    assert disk.result() is None


def test_a_write_without_room_is_sent_again_when_its_daemon_dies(make: Make) -> None:
    disk = make(2)
    disk.write()
    disk.link.take("write").done(None)
    flush = disk.link.take("flush")
    disk.verbs.died()
    flush.done(None)
    disk.link.take("flush").done(None)  # of the next daemon, which never had the write
    again = disk.link.take("write")
    assert not disk.results
    again.done(None)
    disk.link.take("flush").done(None)
    assert disk.result() is None


def test_a_write_without_room_fails_with_its_flush(make: Make) -> None:
    disk = make(2)
    disk.write()
    disk.link.take("write").done(None)
    disk.link.take("flush").done(OSError(errno.ENOSPC, "full"))
    result = disk.result()
    assert result is not None
    assert result.errno == errno.ENOSPC


def test_a_log_that_is_half_full_is_flushed(make: Make) -> None:
    disk = make(64 * KIB)
    disk.write(bytes(20 * KIB))
    disk.link.take("write").done(None)
    assert not disk.link.sent
    disk.write(bytes(20 * KIB))
    disk.link.take("write").done(None)
    assert disk.results == [None, None]
    flush = disk.link.take("flush")
    disk.write(b"last")
    disk.link.take("write").done(None)
    flush.done(None)
    wait_until(lambda: disk.logged() == [b"last"], "the log is cleared")
    assert not disk.link.sent


def test_a_log_that_cannot_be_written_is_done_without(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_log: WriteLog, _change: Change, _views: Views) -> bool:
        raise OSError(errno.EIO, "broken")

    disk = make()
    monkeypatch.setattr(WriteLog, "append", broken)
    disk.write()
    disk.link.take("write").done(None)
    disk.link.take("flush").done(None)
    assert disk.result() is None


def test_a_write_beside_a_log_that_cannot_be_cleared_is_not_acknowledged(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a death, the older write of the log would be repeated over it."""
    disk = make(4)
    disk.write(b"old.")
    disk.link.take("write").done(None)
    assert disk.result() is None
    disk.link.take("flush").done(OSError(errno.ENOSPC, "full"))  # the log is half full
    with monkeypatch.context() as patch:
        patch.setattr(WriteLog, "drop", _broken_drop)
        disk.write(b"new.")
        disk.link.take("write").done(None)
        disk.link.take("flush").done(None)
        result = disk.result()
        assert result is not None
        assert not isinstance(result, FlushError)
        assert "cannot be cleared" in str(result)
        disk.verbs.flush(disk.results.append)
        disk.link.take("flush").done(None)
        assert disk.result() is not None
    assert disk.logged() == [b"old."]
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(None)
    assert disk.result() is None
    assert disk.logged() == []


def _broken_drop(_log: WriteLog, _end: int) -> None:
    raise OSError(errno.EIO, "broken")


def test_without_a_log_an_answer_is_enough(make: Make) -> None:
    disk = make(None)
    disk.write(fua=True)
    sent = disk.link.take("write")
    assert sent.fua
    disk.verbs.died()
    sent.done(None)
    assert disk.result() is None
    disk.verbs.flush(disk.results.append)
    disk.link.take("flush").done(None)
    assert disk.result() is None


def test_a_read_goes_through(make: Make) -> None:
    disk = make()
    disk.verbs.read(3, [memoryview(bytearray(4))], disk.results.append)
    sent = disk.link.take("read")
    assert (sent.offset, sent.length) == (3, 4)
    disk.verbs.died()
    sent.done(None)
    assert disk.result() is None


def _pause(disk: Disk) -> None:
    """Pause a disk that has nothing under way, and resume it."""
    paused = threading.Thread(target=_pause_and_resume, args=(disk,))
    paused.start()
    disk.link.take("flush").done(None)
    paused.join(5)
    assert not paused.is_alive()


def _pause_and_resume(disk: Disk) -> None:
    with disk.verbs.paused():
        pass


def test_a_pause_waits_for_what_is_under_way_and_keeps_others_waiting(make: Make) -> None:
    disk = make()
    inside, leave = threading.Event(), threading.Event()

    def pause() -> None:
        with disk.verbs.paused():
            inside.set()
            leave.wait(5)

    disk.write()
    thread = threading.Thread(target=pause)
    thread.start()
    wait_until(lambda: _is_paused(disk), "the disk is paused")
    assert not inside.wait(0.02)
    disk.link.take("write").done(None)
    assert not inside.wait(0.02)
    disk.link.take("flush").done(None)
    assert inside.wait(5)
    waiting = threading.Thread(target=partial(disk.verbs.write, 0, [], False, disk.results.append, wait=True))
    waiting.start()
    waiting.join(0.02)
    assert waiting.is_alive()
    assert not disk.link.sent
    leave.set()
    disk.link.take("write").done(None)
    for each in (thread, waiting):
        each.join(5)
        assert not each.is_alive()
    assert not _is_paused(disk)


def _is_paused(disk: Disk) -> bool:
    try:
        disk.verbs.read(0, [memoryview(bytearray(1))], lambda _error: None)
    except BlockingIOError:
        return True
    disk.link.take("read").done(None)
    return False


def test_a_pause_whose_flush_fails_ends_at_once(make: Make) -> None:
    disk = make()
    errors: list[OSError] = []

    def pause() -> None:
        try:
            with disk.verbs.paused():
                raise AssertionError
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=pause)
    thread.start()
    disk.link.take("flush").done(OSError(errno.EIO, "lost"))
    thread.join(5)
    assert isinstance(errors[0], FlushError)
    assert not _is_paused(disk)


def test_a_request_that_the_link_cannot_begin_is_left_to_the_synchronous_verb(make: Make) -> None:
    disk = make()
    disk.link.refuses = BlockingIOError(errno.EAGAIN, "not whole blocks")
    with pytest.raises(BlockingIOError):
        disk.write()
    disk.verbs.write(0, [memoryview(b"data")], False, disk.results.append, wait=True)  # as `null` does it
    disk.verbs.read(0, [memoryview(bytearray(1))], disk.results.append, wait=True)
    disk.verbs.unmap(0, 4, disk.results.append, wait=True)
    assert disk.results == [None, None, None]
    assert disk.logged() == [b"data", b""]
