"""The version of a file that a disk shows: its size and validator, which every response has to have."""

from dataclasses import dataclass

from vscsihba.handlers.http.faults import ChangedError, RefusedError
from vscsihba.handlers.http.head import Head, Part
from vscsihba.handlers.http.validator import Validator


def check_body(head: Head) -> Part:
    """Return the range of the file that is in the body of a response.

    Args:
        head: Of a response with the status 206.

    Raises:
        RefusedError: The body is something else than one range of the file's bytes.
    """
    encoding = head.get("content-encoding")
    if encoding.lower() not in ("", "identity"):
        raise RefusedError(f"the server encodes the file ({encoding[:80]}), though it was asked not to")
    if (part := head.part) is None:
        shown = head.get("content-range")[:80]
        raise RefusedError(
            f"the server sends a wrong Content-Range: {shown!r}"
            if shown
            else "the server sends a range of the file without Content-Range"
        )
    return part


@dataclass(frozen=True, slots=True)
class Version:
    """The file as it was when the disk was opened.

    Attributes:
        size: Bytes.
        validator: Its strong validator.
    """

    size: int
    validator: Validator

    @property
    def condition(self) -> str | None:
        """The line of a request that makes it fail if the file is another version."""
        return self.validator.condition

    def accept(self, head: Head, start: int, end: int) -> Part:
        """Return the range in the body of a response.

        Args:
            head: Of a response with the status 206.
            start: First byte that was asked for.
            end: The byte after the last one that was asked for.

        Raises:
            ChangedError: It is of another version of the file.
            RefusedError: It is nothing that could be used.
        """
        part = check_body(head)
        if part.size != self.size:
            raise ChangedError(start, f"the file has {part.size} bytes now, not {self.size}")
        self._check_validator(head, start)
        if part.start != start or part.end > end:
            raise RefusedError(f"the server sends bytes {part.start} to {part.end}, not {start} to {end}")
        return part

    def refusal(self, head: Head, start: int) -> OSError | None:
        """Return the error for a status that says that the file has changed, None for another status."""
        if head.status == 416 and head.size_outside not in (None, self.size):
            return ChangedError(start, f"the file has {head.size_outside} bytes now, not {self.size}")
        if head.status == 412:
            return ChangedError(start, f"the file has changed: it is not {self.validator.value} any more")
        if head.status == 200:
            try:
                self._check_validator(head, start)
            except OSError as error:
                return error
        return None

    def _check_validator(self, head: Head, start: int) -> None:
        validator = self.validator
        if not head.get(validator.field):
            raise RefusedError(f"the server sends no {validator.field} with the file any more")
        if not validator.fits(head):
            now = head.get(validator.field)[:80]
            raise ChangedError(start, f"the file has changed: it is {now} now, not {validator.value}")
