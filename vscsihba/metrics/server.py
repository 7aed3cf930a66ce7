"""An HTTP server that answers each request with the metrics of that moment; it never changes anything."""

import errno
import ipaddress
import os
import socket
import socketserver
import stat
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from vscsihba.errors import HostError, UsageError, VscsihbaError

Page = Callable[[str], tuple[str, bytes]]
"""Returns content type and body, for what the client accepts."""

_SILENCE: Final = 10.0
"""Seconds after which a client that says nothing is left."""

_WHOLE_PATH: Final = "use 127.0.0.1:9809, [::1]:9809, or unix:/run/vscsihba/metrics.sock"


class Address:
    """The address of a listener: an IP address and a port, or the path of a Unix socket.

    Args:
        text: ``127.0.0.1:9809``, ``[::1]:9809`` or ``unix:/path``.

    Attributes:
        path: Path of the Unix socket; None for TCP.
        host: IP address; empty for a Unix socket.
        port: 0..65535; 0 lets the system choose one.

    Raises:
        UsageError: It is none of these.
    """

    def __init__(self, text: str) -> None:
        self.path = Path(text.removeprefix("unix:")) if text.startswith("unix:") else None
        self.host, self.port = "", 0
        if self.path is not None:
            if not self.path.is_absolute():
                raise UsageError(f"{text!r} is no absolute path", cure=_WHOLE_PATH)
            return
        host, _, port = text.rpartition(":")
        try:
            self.host = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
            self.port = int(port)
        except ValueError as error:
            raise UsageError(f"{text!r} is no address with a port", cure=_WHOLE_PATH) from error
        if not 0 <= self.port <= 0xFFFF or not port.isdecimal():
            raise UsageError(f"{port} is no port", cure="use 1 to 65535")

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.path is not None or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        """Return the address as a URL, or the path."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server on a Unix socket, with a thread for each request."""

    daemon_threads = True

    def handle_error(self, _request: object, _client: object) -> None:
        """Ignore a client that has gone, or that says nothing."""


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on a TCP port, likewise."""

    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, _request: object, _client: object) -> None:
        """Ignore a client that has gone, or that says nothing."""


class MetricsServer:
    """The server, from its making until the end of the context.

    Args:
        address: Where to listen.
        pages: Answers GET of each path with a content type and a body; it is called with the header Accept.

    Attributes:
        address: Where it listens, with the port that the system has chosen.

    Raises:
        HostError: The address is not this machine's, or is taken.
    """

    def __init__(self, address: Address, pages: Mapping[str, Page]) -> None:
        self.address = address
        handler = partial(_Request, pages)
        try:
            self._server = _unix(address.path, handler) if address.path else _tcp(address, handler)
        except OSError as error:
            raise HostError(
                f"cannot listen on {address}: {error.strerror}", cure="choose another address"
            ) from error

    def serve(self) -> None:
        """Answer requests until `stop`."""
        self._server.serve_forever()

    def stop(self) -> None:
        """End `serve`; for another thread."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the socket, and remove that of the file system."""
        self._server.server_close()
        if self.address.path is not None:
            self.address.path.unlink(missing_ok=True)


class _Request(BaseHTTPRequestHandler):
    """One request; a client that says nothing for `timeout` seconds is left."""

    timeout = _SILENCE
    server_version = "vscsihba"
    sys_version = ""

    def __init__(self, pages: Mapping[str, Page], *arguments: Any) -> None:
        self._pages = pages
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer with a page."""
        page = self._pages.get(urlsplit(self.path).path)
        try:
            if page is None:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", _list_of(self._pages))
            else:
                self._answer(HTTPStatus.OK, *page(self.headers.get("Accept", "")))
        except VscsihbaError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class calls it so
        """Log nothing."""


def _list_of(pages: Mapping[str, Page]) -> bytes:
    return f"there is only {' and '.join(pages)}\n".encode()


def _tcp(address: Address, handler: Callable[..., BaseHTTPRequestHandler]) -> _TcpServer:
    server = _TcpServer((address.host, address.port), handler, bind_and_activate=False)
    if ":" in address.host:
        server.socket.close()
        server.socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    _begin(server)
    address.port = server.socket.getsockname()[1]
    return server


def _unix(path: Path, handler: Callable[..., BaseHTTPRequestHandler]) -> _UnixServer:
    _clear(path)
    server = _UnixServer(str(path), handler, bind_and_activate=False)
    _begin(server)
    return server


def _begin(server: socketserver.TCPServer) -> None:
    try:
        server.server_bind()
        server.server_activate()
    except BaseException:
        server.server_close()
        raise


def _clear(path: Path) -> None:
    """Remove a Unix socket on which nobody listens any more.

    Raises:
        OSError: It is in use, or something else is there.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "it is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
