"""The place of a file: the URL of the options, and the one that redirects lead to."""

from string import punctuation
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from vscsihba.handlers.http.options import check_url

_PORTS: Final = {"http": 80, "https": 443}
_PRINTABLE: Final = punctuation
"""Letters beside ASCII's letters and digits that stay in a URL as they are."""


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL: those that credentials are for."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    return parts.scheme, host, parts.port or _PORTS.get(parts.scheme, 0)


class Location:
    """The place that requests go to now.

    Args:
        url: The URL of the options.

    Attributes:
        url: That URL.
        current: The URL that requests go to.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.current = url
        self._origin = origin(url)

    def is_own(self, url: str) -> bool:
        """Return whether credentials may go to a URL."""
        return url == self.url or origin(url) == self._origin

    def follow(self, source: str, target: str) -> None:
        """Go where a redirect leads.

        Args:
            source: URL of the request.
            target: The place as the server names it, maybe relative to `source`; empty if it names none.

        Raises:
            ValueError: It is no URL to go to.
        """
        if not target:
            raise ValueError("the server redirects to nowhere")
        url = urljoin(source, quote(target.encode("latin-1"), safe=_PRINTABLE)).partition("#")[0]
        try:
            check_url(url)
        except ValueError as error:
            raise ValueError(f"the server redirects to {url!r}: {error}") from error
        if urlsplit(source).scheme == "https" and urlsplit(url).scheme != "https":
            raise ValueError(
                f"the server redirects from https to {url!r}, where anybody could change the file"
            )
        self.current = url

    def leave(self, url: str) -> bool:
        """Go back to the URL of the options if requests go to `url`; return whether `url` is another one."""
        if self.current == url:
            self.current = self.url
        return url != self.url
