"""The version of a file that a disk shows, known by a strong validator (RFC 9110, 8.8).

Two responses with the same strong validator have bytes of the same version. It goes along with every
request, and every response is compared: servers and caches may ignore the condition of a request.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vscsihba.handlers.http.head import Head, date_of

_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_OLD_ENOUGH: Final = timedelta(seconds=60)
"""Age from which a date of modification is strong: a file that changed twice in one second has one date. The
clocks of the server that dates and the one that stores may differ, hence more than a second (8.8.2.2)."""

_OTHER_SERVER: Final = "have the server send Last-Modified or a strong ETag, or download the file"


@dataclass(frozen=True, slots=True)
class Validator:
    """A strong validator.

    Attributes:
        field: The field that it comes from: ``etag`` or ``last-modified``.
        value: Its value.
    """

    field: str
    value: str

    @property
    def condition(self) -> str:
        """The line of a request that makes it fail (412) if the file is another version."""
        name = "If-Match" if self.field == "etag" else "If-Unmodified-Since"
        return f"{name}: {self.value}"

    def fits(self, head: Head) -> bool:
        """Return whether a response has the same version."""
        return head.get(self.field) == self.value


def validator_of(head: Head) -> Validator | None:
    """Return the strong validator of a response; None if it has none."""
    etag, modified = head.get("etag"), head.get("last-modified")
    if _STRONG_ETAG.fullmatch(etag):
        return Validator("etag", etag)
    changed, now = date_of(modified), date_of(head.get("date"))
    if changed is not None and now is not None and now - changed >= _OLD_ENOUGH:
        return Validator("last-modified", modified)
    return None


def lacks(head: Head) -> tuple[str, str]:
    """Return why a response has no strong validator, and the cure."""
    if head.get("etag").startswith("W/") and not head.get("last-modified"):
        return "has only a weak ETag, so a change of the file could go unnoticed", _OTHER_SERVER
    if head.get("last-modified"):
        return "has no strong ETag and was modified a moment ago", "wait a minute"
    return "has neither ETag nor Last-Modified, so a change of the file could go unnoticed", _OTHER_SERVER
