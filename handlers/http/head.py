"""The header of an HTTP response: its lines, and the fields that matter for a range of a file (RFC 9110)."""

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

_STATUS_LINE: Final = re.compile(r"HTTP/\d(?:\.\d)? (\d{3})(?: .*)?")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.IGNORECASE)
_OTHER_SIZE: Final = re.compile(r"bytes \*/(\d{1,19})", re.IGNORECASE)
_LONGEST_WAIT: Final = 60.0
"""Seconds for which a server may ask to be left alone (Retry-After)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a file.

    Attributes:
        start: First byte.
        end: The byte after the last one.
        size: Bytes of the whole file.
    """

    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """The status and the fields of one response.

    Attributes:
        status: The status code; 0 if there is none.
        fields: Values by lower-case name; several values of one name are joined with commas.
    """

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: list[bytes]) -> "Head":
        """Return the last of several headers, such as that after 100 Continue, of their lines."""
        head = cls()
        for line in lines:
            text = line.decode("latin-1").rstrip("\r\n")
            if text.startswith("HTTP/") and (status := _STATUS_LINE.fullmatch(text)):
                head = cls(int(status[1]))
                continue
            name, colon, value = text.partition(":")
            if colon:
                key, value = name.strip().lower(), value.strip()
                head.fields[key] = f"{head.fields[key]}, {value}" if key in head.fields else value
        return head

    def get(self, name: str) -> str:
        """Return the value of a field by its lower-case name, empty if there is none."""
        return self.fields.get(name, "")

    @property
    def part(self) -> Part | None:
        """The range in the body (Content-Range); None if the field is missing, wrong or without a size."""
        found = _CONTENT_RANGE.fullmatch(self.get("content-range"))
        if found is None:
            return None
        first, last, size = map(int, found.groups())
        return Part(first, last + 1, size) if first <= last < size else None

    @property
    def size_outside(self) -> int | None:
        """The size of the file, when a range was not inside it (416)."""
        found = _OTHER_SIZE.fullmatch(self.get("content-range"))
        return None if found is None else int(found[1])

    @property
    def retry_after(self) -> float:
        """Seconds for which the server asks to be left alone, 0 if it does not."""
        text = self.get("retry-after")
        if text.isascii() and text.isdigit():
            return min(float(text[:9]), _LONGEST_WAIT)
        moment = date_of(text)
        return 0.0 if moment is None else min(max(moment.timestamp() - time.time(), 0.0), _LONGEST_WAIT)

    def describe(self) -> str:
        """Return the status as text, such as ``404 Not Found``."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)


def date_of(text: str) -> datetime | None:
    """Return the moment that an HTTP date names, None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
