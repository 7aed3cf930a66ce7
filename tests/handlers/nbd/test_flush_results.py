"""Results of flushes: which of them tell of writes that were lost."""

import errno

from vscsihba.errors import FlushError
from vscsihba.handlers.nbd.flush_results import FlushResults
from vscsihba.handlers.nbd.requests import Kind, Request


class Flushes:
    """The flushes of a link, and those that a server has to answer."""

    def __init__(self) -> None:
        self.results = FlushResults("nbd://server/disk", self._send)
        self.sent: list[Request] = []
        self.told: dict[str, str] = {}
        self.is_away = False

    def _send(self, request: Request) -> None:
        if self.is_away:
            raise OSError(errno.ENOTCONN, "away")
        self.sent.append(request)

    def begin(self, name: str) -> Request:
        def done(error: OSError | None) -> None:
            self.told[name] = str(error.strerror) if error is not None else ""
            assert error is None or isinstance(error, FlushError)

        request = Request(Kind.FLUSH, done, reports=True)
        self.results.begin_reporting(request)
        return request


class Watched:
    """A lock that counts."""

    def __init__(self) -> None:
        self.taken = 0

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        pass


def test_nothing_fails_before_writes_are_lost() -> None:
    flushes = Flushes()
    request = flushes.begin("first")
    assert flushes.sent == [request]
    assert request.number == 1
    flushes.results.hand_on(request)
    flushes.results.hand_on(Request(Kind.FLUSH, lambda error: flushes.told.update(private=str(error))))
    assert flushes.told == {"first": "", "private": "None"}


def test_a_second_reason_counts_and_none_leaves_the_first() -> None:
    flushes = Flushes()
    flushes.results.note("first")
    flushes.results.note("")
    flushes.results.hand_on(flushes.begin("one"))
    flushes.results.note("first")
    flushes.results.note("second")
    flushes.results.hand_on(flushes.begin("two"))
    assert [text.partition(": ")[2] for text in flushes.told.values()] == ["first", "second"]


def test_a_write_waits_for_the_flush_after_it() -> None:
    flushes, ended = Flushes(), list[OSError | None]()
    write = Request(Kind.WRITE, ended.append, fua=True)
    flushes.results.begin_after(write)
    (flush,) = flushes.sent
    assert flush.kind is Kind.FLUSH
    assert ended == []
    flush.done(None)
    assert ended == [None]
    flushes.is_away = True
    flushes.results.begin_after(write)
    assert isinstance(ended[-1], OSError)


def test_a_flush_of_its_own_that_cannot_be_sent_keeps_nobody_waiting() -> None:
    flushes = Flushes()
    flushes.is_away = True
    flushes.results.begin_own()
    flushes.is_away = False
    flushes.results.begin_own()
    assert len(flushes.sent) == 1, "the one before is over"


def test_every_method_takes_the_lock() -> None:
    flushes = Flushes()
    flushes.results._lock = watched = Watched()  # type: ignore[assignment]
    taken = []
    request = flushes.begin("one")
    for use in (
        lambda: flushes.results.note("lost"),
        lambda: flushes.begin("two"),
        flushes.results.begin_own,
        lambda: flushes.results.hand_on(request),
        lambda: flushes.sent[-1].done(None),
        lambda: flushes.results.hand_on(request),
    ):
        before = watched.taken
        use()
        taken.append(watched.taken - before)
    assert taken == [1, 1, 1, 1, 2, 2], "the last two end a flush as well"


def test_every_flush_that_has_begun_before_one_tells_of_lost_writes_tells_of_them_too() -> None:
    flushes = Flushes()
    first, second = flushes.begin("first"), flushes.begin("second")
    flushes.results.note("")
    flushes.results.note("writes were lost")
    third = flushes.begin("third")
    for request in (third, first, second):
        flushes.results.hand_on(request)
    flushes.results.hand_on(flushes.begin("later"))
    lost = "nbd://server/disk: writes were lost"
    assert flushes.told == {"third": lost, "first": lost, "second": lost, "later": ""}
    flushes.results.note("again")
    flushes.results.hand_on(flushes.begin("last"))
    assert flushes.told["last"] == "nbd://server/disk: again"


def test_a_flush_waits_for_the_result_of_one_that_the_disk_has_sent_itself() -> None:
    flushes = Flushes()
    flushes.results.begin_own()
    flushes.results.begin_own()
    (own,) = flushes.sent
    request = flushes.begin("theirs")
    flushes.results.hand_on(request)
    assert flushes.told == {}
    own.done(FlushError(errno.EIO, "full"))
    assert flushes.told == {"theirs": "nbd://server/disk: a flush has failed: full"}
    flushes.results.begin_own()
    flushes.sent[-1].done(OSError(errno.ENOTCONN, "away"))  # the writes will be sent again
    flushes.results.hand_on(flushes.begin("later"))
    assert flushes.told["later"] == ""
    flushes.is_away = True
    flushes.results.begin_own()
    flushes.results.hand_on(request)
    assert flushes.told["theirs"].endswith("full"), "it began before the failure was told"
