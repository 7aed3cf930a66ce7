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
