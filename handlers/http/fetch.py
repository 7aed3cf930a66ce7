"""A range of the file that is fetched, through as many requests as it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vscsihba.handlers.http.head import Head, Part


class Expected(Protocol):
    """The judge of responses: `vscsihba.handlers.http.version.Version`, or one that learns the version."""

    @property
    def condition(self) -> str | None:
        """A line for the header of each request."""

    def accept(self, head: Head, start: int, end: int) -> Part:
        """Return the range in the body of a response with the status 206.

        Raises:
            OSError: It cannot be used.
        """

    def refusal(self, head: Head, start: int) -> OSError | None:
        """Return the error for a response with another status, None if only the status matters."""


@dataclass(slots=True, eq=False)
class Fetch:
    """A range of the file under way; all of it belongs to the thread of `Transfers`.

    Attributes:
        start: First byte.
        end: The byte after the last one.
        expected: Judge of the responses.
        store: Takes bytes as they come: ``(distance from start, data)``.
        done: Called once, with the error or None; nothing is stored after that.
        deadline: Moment (``time.monotonic``) at which it fails.
        urgent: Somebody waits for it.
        patient: Try again while the server is away.
        received: Bytes that were stored.
        redirects: Redirects that were followed.
        tries: Requests in a row that brought nothing.
        went_back: The place that a redirect led to was given up once.
        reason: The last failure.
        cure: Its remedy.
    """

    start: int
    end: int
    expected: Expected
    store: Callable[[int, bytes], None]
    done: Callable[[OSError | None], None]
    deadline: float
    urgent: bool = True
    patient: bool = True
    received: int = 0
    redirects: int = 0
    tries: int = 0
    went_back: bool = False
    reason: str = "the server sends nothing"
    cure: str | None = None

    @property
    def at(self) -> int:
        """The first byte that is still missing."""
        return self.start + self.received
