"""Handles of libcurl with the settings of a disk; those for other hosts know no secret of it."""

import math
from typing import Any, Final

from vscsihba.handlers.http import library
from vscsihba.handlers.http.attempt import Attempt
from vscsihba.handlers.http.fetch import Fetch
from vscsihba.handlers.http.location import Location
from vscsihba.handlers.http.options import HttpOptions

_RECEIVE: Final = 256 << 10
"""Bytes of libcurl's receive buffer."""
_TRIES: Final = 3
"""Requests that may come to nothing within the time limit of a read, one after the other."""


class EasyHandles:
    """Handles that are used again, for the host of the URL and for others.

    Args:
        options: Settings of the disk.
        location: Tells the host of the URL from others.
    """

    def __init__(self, options: HttpOptions, location: Location) -> None:
        self._options = options
        self._location = location
        self._credentials = options.credentials()
        self._idle: dict[bool, list[Any]] = {True: [], False: []}
        self._curl = library.pycurl()

    def attempt(self, fetch: Fetch, url: str) -> Attempt:
        """Return a request for the rest of a range, ready to be carried out."""
        own = self._location.is_own(url)
        idle = self._idle[own]
        attempt = Attempt(fetch, url, handle := idle.pop() if idle else self._make(own=own), own=own)
        condition = fetch.expected.condition
        headers = ["Accept-Encoding: identity", *([condition] if condition else [])]
        handle.setopt(self._curl.URL, url.encode())
        handle.setopt(self._curl.RANGE, f"{fetch.at}-{fetch.end - 1}")
        handle.setopt(self._curl.HTTPHEADER, [line.encode("latin-1") for line in headers])
        handle.setopt(self._curl.HEADERFUNCTION, attempt.on_header)
        handle.setopt(self._curl.WRITEFUNCTION, attempt.on_body)
        return attempt

    def put_back(self, attempt: Attempt) -> None:
        """Take the handle of a request that has ended."""
        attempt.handle.setopt(self._curl.HEADERFUNCTION, _ignore)
        attempt.handle.setopt(self._curl.WRITEFUNCTION, _ignore)
        self._idle[attempt.own].append(attempt.handle)

    def finish(self, attempt: Attempt) -> None:
        """Complete the results of a request that has ended."""
        if not attempt.handle.getinfo(self._curl.RESPONSE_CODE) and attempt.head.status == 200:
            attempt.forget_header()  # it was the proxy's response to CONNECT

    def close(self) -> None:
        """Close all handles."""
        for idle in self._idle.values():
            for handle in idle:
                handle.close()
            idle.clear()

    def _make(self, *, own: bool) -> Any:
        """Return a new handle.

        Args:
            own: It is for the host of the URL, which the secrets are for.
        """
        curl, limit = self._curl, self._options.timeout / _TRIES
        handle = curl.Curl()
        settings: dict[int, object] = {
            curl.NOSIGNAL: 1,
            curl.NOPROGRESS: 1,
            curl.PROTOCOLS: curl.PROTO_HTTP | curl.PROTO_HTTPS,
            # One request at a time on each connection: a lost packet delays no other request.
            curl.HTTP_VERSION: curl.CURL_HTTP_VERSION_1_1,
            curl.FOLLOWLOCATION: 0,  # `Location` follows
            curl.USERAGENT: "vscsihba",
            curl.BUFFERSIZE: _RECEIVE,
            curl.CONNECTTIMEOUT_MS: max(1, round(limit * 1000)),
            curl.LOW_SPEED_LIMIT: 1,
            curl.LOW_SPEED_TIME: max(1, math.floor(limit)),
            curl.TCP_KEEPALIVE: 1,
            curl.SSLVERSION: curl.SSLVERSION_TLSv1_2,
            curl.SSL_VERIFYPEER: 1,
            curl.SSL_VERIFYHOST: 2,
            **self._proxy(),
        }
        if self._options.ca_file:
            settings |= {curl.CAINFO: self._options.ca_file, curl.PROXY_CAINFO: self._options.ca_file}
        if own and self._credentials:
            settings |= {curl.HTTPAUTH: curl.HTTPAUTH_BASIC, curl.USERPWD: self._credentials.encode()}
        if own and self._options.client_key:
            settings |= {
                curl.SSLCERT: self._options.client_certificate,
                curl.SSLKEY: self._options.client_key,
            }
        for option, value in settings.items():
            handle.setopt(option, value)
        if self._options.ca_file:
            handle.unsetopt(curl.CAPATH)  # or the system's certificates would count as well
        return handle

    def _proxy(self) -> dict[int, object]:
        """Return the settings of the proxy; none, and libcurl takes it from the environment."""
        proxy = self._options.proxy
        if self._credentials and self._options.url.startswith("http:"):
            proxy = "none"  # a password in clear text stays on this machine
        if proxy is None:
            return {}
        return {self._curl.PROXY: "" if proxy == "none" else proxy, self._curl.NOPROXY: ""}


def _ignore(_data: bytes) -> None:
    """Take bytes for a handle that carries no request."""
