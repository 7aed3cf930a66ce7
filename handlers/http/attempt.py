"""One request for (the rest of) a range, and the judgement of its response."""

from dataclasses import dataclass
from typing import Any, Final

from vscsihba.handlers.http.cures import cure_of_status
from vscsihba.handlers.http.faults import RefusedError
from vscsihba.handlers.http.fetch import Fetch
from vscsihba.handlers.http.head import Head

REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
TEMPORARY: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses of a server that may answer the same request otherwise a moment later."""
PLACES: Final = frozenset((401, 403, 404, 410))
"""Statuses of a place that a redirect led to, which may have been for a while only (a signed URL)."""
_LONGEST_TEXT: Final = 64 << 10
"""Bytes of an error's page that are read to keep the connection."""
_LONGEST_HEADER: Final = 256 << 10
"""Bytes of all header lines of a response."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The file is elsewhere.

    Attributes:
        target: The place, as the server names it; empty if it does not.
    """

    target: str


@dataclass(frozen=True, slots=True)
class Later:
    """The request may succeed later.

    Attributes:
        reason: The fault.
        wait: Seconds for which the server asks to be left alone.
        cure: The remedy.
    """

    reason: str
    wait: float = 0.0
    cure: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The request fails.

    Attributes:
        error: The reason.
        status: The status of the response, if that is the reason.
    """

    error: OSError
    status: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A transfer that libcurl has ended with an error.

    Attributes:
        message: The reason.
        lasting: Another try would meet it as well.
        cure: The remedy.
    """

    message: str
    lasting: bool = False
    cure: str | None = None


Outcome = Redirect | Later | Failed | None
"""The outcome of a request; None: everything that the response promised has come."""


class Attempt:
    """A request under way.

    Args:
        fetch: The range that it belongs to.
        url: The place that it goes to.
        handle: The ``pycurl.Curl`` that carries it.
        own: It goes to the host that the secrets of the disk are for.

    Attributes:
        began: The first byte that it asks for.
    """

    def __init__(self, fetch: Fetch, url: str, handle: Any, *, own: bool) -> None:
        self.fetch = fetch
        self.url = url
        self.handle = handle
        self.own = own
        self._lines: list[bytes] = []
        self.began = fetch.at
        self._end = -1  # of the range in the body, once it is accepted
        self._fault: OSError | None = None
        self._dropped = 0
        self._header = 0
        self._head: Head | None = None

    def on_header(self, line: bytes) -> int:
        """Take a line of the header; return its length, or -1 to end the transfer."""
        self._header += len(line)
        if self._header > _LONGEST_HEADER:
            self._fault = RefusedError("the server sends a header without end")
            return -1
        self._lines.append(line)
        return len(line)

    @property
    def head(self) -> Head:
        """The header of the response, for the first body byte or the end of the transfer."""
        if self._head is None:
            self._head = Head.of(self._lines)
        return self._head

    def forget_header(self) -> None:
        """Forget the header: it was not the server's."""
        self._lines.clear()
        self._head = None

    def on_body(self, data: bytes) -> int:
        """Take bytes of the body; return their number, or -1 to end the transfer."""
        try:
            if self.head.status != 206:
                return self._drop(len(data))
            self._accept()
            if self.fetch.at + len(data) > self._end:
                raise RefusedError("the server sends more bytes than it has promised")
            self.fetch.store(self.fetch.received, data)
            self.fetch.received += len(data)
        except OSError as error:
            self._fault = _bare(error)
            return -1
        return len(data)

    def _drop(self, count: int) -> int:
        """Take bytes that nobody wants."""
        self._dropped += count
        return -1 if self.head.status == 200 or self._dropped > _LONGEST_TEXT else count

    def _accept(self) -> None:
        """Check the header of a response with the status 206, once."""
        if self._end < 0:
            part = self.fetch.expected.accept(self.head, self.began, self.fetch.end)
            self._end = part.end
            self.fetch.end = min(self.fetch.end, part.size)

    def outcome(self, failure: Failure | None) -> Outcome:
        """Return the outcome, when libcurl has ended the transfer.

        Args:
            failure: Its error, None if it has none.
        """
        if self._fault is not None:
            return Failed(self._fault)
        status = self.head.status
        if status == 206 and (failure is None or 0 <= self._end <= self.fetch.at):
            return self._of_range()
        if failure is not None and (status < 200 or status == 206):
            lasting = Failed(RefusedError(failure.message, failure.cure))
            return lasting if failure.lasting else Later(failure.message, cure=failure.cure)
        return self._of_status()

    def _of_status(self) -> Outcome:
        """Return the outcome of a response that has no range."""
        head = self.head
        if head.status in REDIRECTS:
            return Redirect(head.get("location"))
        if head.status in TEMPORARY:
            return Later(f"the server answers {head.describe()}", head.retry_after)
        if (error := self.fetch.expected.refusal(head, self.began)) is not None:
            return Failed(error)
        return Failed(_refusal(head, self.url), head.status)

    def _of_range(self) -> Outcome:
        """Return the outcome of a range that has ended."""
        try:
            self._accept()
        except OSError as error:
            return Failed(_bare(error))
        return (
            None if self.fetch.at >= self._end else Later("the server sends fewer bytes than it has promised")
        )


def _bare(error: OSError) -> OSError:
    """Return an error without its traceback, whose frames would keep views of the read."""
    return error.with_traceback(None)


def _refusal(head: Head, url: str) -> RefusedError:
    """Return the error for a status that nothing else is known about."""
    if head.status == 200:
        return RefusedError(
            "the server sends the whole file when it is asked for a range of it",
            "use a server that supports byte ranges, or download the file",
        )
    return RefusedError(f"the server answers {head.describe()}", cure_of_status(head.status, url))
