"""Examination of a file when its disk is opened: its size, its version, and that it is a raw image."""

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.file.image_formats import HEAD, TAIL, cure_for, format_of
from vscsihba.handlers.http.faults import RefusedError
from vscsihba.handlers.http.fetch import Expected, Fetch
from vscsihba.handlers.http.head import Head, Part
from vscsihba.handlers.http.options import HttpOptions
from vscsihba.handlers.http.transfers import Transfers
from vscsihba.handlers.http.validator import lacks, validator_of
from vscsihba.handlers.http.version import Version, check_body

_SLACK: Final = 5.0
"""Seconds for which `Transfers` may be late with an error."""


class _Unknown:
    """The judge of responses while the version is unknown: takes the version of the first one."""

    version: Version | None = None

    @property
    def condition(self) -> str | None:
        """No condition, until the version is known."""
        return None if self.version is None else self.version.condition

    def accept(self, head: Head, start: int, end: int) -> Part:
        """Return the range in the body of a response, and take its version.

        Raises:
            RefusedError: The file cannot be a disk.
        """
        if self.version is None:
            part = check_body(head)
            validator = validator_of(head)
            if validator is None:
                why, cure = lacks(head)
                raise RefusedError(f"the file {why}", cure)
            self.version = Version(part.size, validator)
        return self.version.accept(head, start, min(end, self.version.size))

    def refusal(self, head: Head, start: int) -> OSError | None:
        """Return the error for an empty file, which has no range."""
        if self.version is None and head.status == 416 and head.size_outside == 0:
            return RefusedError("the file is empty")
        return None if self.version is None else self.version.refusal(head, start)


@dataclass(frozen=True, slots=True)
class _Examiner:
    """Fetches ranges of a file that is examined.

    Attributes:
        transfers: Fetches them.
        options: Settings of the disk.
        patient: Try again while the server is away.
    """

    transfers: Transfers
    options: HttpOptions
    patient: bool

    def get(self, start: int, end: int, expected: Expected) -> bytes:
        """Return a range of the file; less, if the file ends before.

        Raises:
            HostError: The server does not deliver.
        """
        content, errors, ended = bytearray(end - start), list[OSError | None](), threading.Event()

        def store(at: int, data: bytes) -> None:
            content[at : at + len(data)] = data

        def done(error: OSError | None) -> None:
            errors.append(error)
            ended.set()

        deadline = time.monotonic() + self.options.timeout
        fetch = Fetch(start, end, expected, store, done, deadline, patient=self.patient)
        self.transfers.call(partial(self.transfers.begin, fetch))
        if not ended.wait(self.options.timeout + _SLACK):
            raise HostError(f"{self.options.url}: no answer")
        if (error := errors[0]) is not None:
            raise HostError(
                f"{self.options.url}: {error.strerror}", cure=getattr(error, "cure", None)
            ) from error
        return bytes(content[: fetch.received])


def examine(transfers: Transfers, options: HttpOptions, *, patient: bool) -> Version:
    """Return the version of the file that the server has.

    Args:
        transfers: Fetches ranges of it.
        options: Settings of the disk.
        patient: Try again while the server is away, until the time limit.

    Raises:
        HostError: The server does not deliver, or not in a way that makes a disk.
        UsageError: The file is an image of another format than raw.
    """
    examiner, unknown = _Examiner(transfers, options, patient), _Unknown()
    head = examiner.get(0, HEAD, unknown)
    version = unknown.version
    assert version is not None  # noqa: S101  # for the type checker: something was accepted
    tail = head[-TAIL:]
    if version.size > len(head):
        tail = examiner.get(version.size - TAIL, version.size, version)
    if options.format is None and (name := format_of(head, tail)):
        raise UsageError(f"{options.url} is an image of the format {name}, not raw", cure=cure_for(name))
    return version
