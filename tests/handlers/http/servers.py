"""HTTP servers of the tests: a real nginx, and one that does whatever a test tells it to."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.polling import wait_until

_UNPACKED = Path(__file__).resolve().parents[3] / "build/nginx/usr/sbin"
"""Place of the nginx that `./dev setup` unpacks."""

CONF = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port}{listen};
        root {root};
{more}
    }}
}}
"""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Nginx:
    """A real nginx on a port of the loopback interface.

    Args:
        folder: For its configuration and its files, in the folder ``www``.
        more: Lines for the server in its configuration.
        listen: Parameters of the port, such as " ssl".
    """

    def __init__(self, folder: Path, *, more: str = "", listen: str = "") -> None:
        self.port = free_port()
        self.root = folder / "www"
        self.root.mkdir(parents=True)
        folder.chmod(0o755)
        self._conf = folder / "nginx.conf"
        self._log = folder / "error.log"
        text = CONF.format(folder=folder, port=self.port, root=self.root, more=more, listen=listen)
        if os.geteuid() == 0:
            text = "user root;" + text
        self._conf.write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, name: str, scheme: str = "http", host: str = "127.0.0.1") -> str:
        """Return the URL of a file."""
        return f"{scheme}://{host}:{self.port}/{name}"

    def put(self, name: str, content: bytes) -> Path:
        """Make a file, as one that was last changed an hour ago."""
        path = self.root / name
        path.write_bytes(content)
        os.utime(path, (time.time() - 3600,) * 2)
        return path

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("nginx", path=f"{_UNPACKED}:/usr/sbin:{os.environ['PATH']}")
        assert program is not None, "there is no nginx: run ./dev setup"
        self.process = subprocess.Popen([program, "-c", self._conf, "-e", self._log], start_new_session=True)
        wait_until(self._listens, "nginx")

    def kill(self) -> None:
        """Kill it, with its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            wait_until(lambda: not self._listens(), "the end of nginx")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass
class Request:
    """A request, as a server has received it.

    Attributes:
        target: Path or URL that it asks for.
        fields: Values by lower-case name.
        number: Requests before it.
    """

    target: str
    fields: dict[str, str]
    number: int

    @property
    def range(self) -> tuple[int, int]:
        """The range that it asks for: first byte, and the one after the last."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.fields["range"])
        assert found is not None
        return int(found[1]), int(found[2]) + 1


@dataclass
class Reply:
    """A response; the default of a script's is the right one, which it may change.

    Attributes:
        status: Status code.
        fields: Names and values; a Content-Length is added if there is none.
        body: The body.
        raw: Sent instead of all that.
        pause: Seconds before each byte of the body.
        hang: Send nothing, and wait for the end of the server.
        close: Close the connection afterwards.
    """

    status: int
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None
    pause: float = 0.0
    hang: bool = False
    close: bool = False

    def header(self) -> bytes:
        """Return the status line and the fields."""
        fields = dict(self.fields)
        if "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(self.body)))
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode()


Script = Callable[[Request, Reply], None]


class Scripted:
    """A server of one file whose responses a test changes.

    Args:
        content: The file.

    Attributes:
        content: The file.
        fields: Fields of every right response.
        script: Called with each request and the right response, which it may change.
        requests: All requests.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fields = {"ETag": '"one"'}
        self.script: Script = lambda request, reply: None
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._connections: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, name: str = "a.img", host: str = "127.0.0.1") -> str:
        """Return the URL of the file; any name will do."""
        return f"http://{host}:{self.port}/{name}"

    def close(self) -> None:
        """End it."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._threads[0].join()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def right(self, request: Request) -> Reply:
        """Return the right response."""
        if "range" not in request.fields:
            return Reply(200, dict(self.fields), self.content)
        start, end = request.range
        end = min(end, len(self.content))
        if start >= end:
            return Reply(416, {"Content-Range": f"bytes */{len(self.content)}"})
        fields = {"Content-Range": f"bytes {start}-{end - 1}/{len(self.content)}", **self.fields}
        return Reply(206, fields, self.content[start:end])

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming, contextlib.suppress(OSError):
            while line := incoming.readline():
                fields = {}
                while (text := incoming.readline().decode().strip()) != "":
                    name, _, value = text.partition(":")
                    fields[name.lower()] = value.strip()
                with self._lock:
                    request = Request(line.decode().split()[1], fields, len(self.requests))
                    self.requests.append(request)
                reply = self.right(request)
                self.script(request, reply)
                if reply.hang:
                    self._over.wait()
                    return
                self._send(connection, reply)
                if reply.close:
                    return

    def _send(self, connection: socket.socket, reply: Reply) -> None:
        if reply.raw is not None:
            connection.sendall(reply.raw)
        elif reply.pause:
            connection.sendall(reply.header())
            for byte in reply.body:
                if self._over.wait(reply.pause):
                    return
                connection.sendall(bytes([byte]))
        else:
            connection.sendall(reply.header() + reply.body)
