"""The other engines of an HBA: an engine notices at once when one starts, changes or dies.

Each engine listens on a Unix socket in the HBA's run directory and holds a connection to every other one.
A connection carries the descriptions of both engines. When it breaks, one of them is dead: the kernel closes
the sockets of a killed process.

The thread that watches the connections survives temporary shortages of the machine. If it dies, its process
ends: an engine that does not notice deaths takes over no LUN.

Knows that engines have LUNs, not what follows from that.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vscsihba.engine.owning.assignment import EngineInfo
from vscsihba.engine.owning.link import Link
from vscsihba.engine.owning.locks import pid_of
from vscsihba.errors import HostError
from vscsihba.threads import VitalThread, repeat, start

_TIMEOUT = 30.0

_PAUSE = 0.1
"""Seconds before the next try, if the machine lacks descriptors or memory."""


class Peers:
    """The engines of one HBA, this one included.

    Args:
        run: The HBA's run directory.
        luns: The LUNs that this engine knows.
        changed: Called when `engines` has changed, on the thread that watches them.

    Attributes:
        me: This engine.
    """

    def __init__(self, run: Path, luns: frozenset[int], changed: Callable[[], None]) -> None:
        self.me = EngineInfo(time.monotonic_ns(), os.getpid(), luns)
        self._run = run
        self._changed = changed
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._selector = selectors.DefaultSelector()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._listener: socket.socket | None = None
        self._untold = False
        self._thread = VitalThread(self._watch, "peers")

    @property
    def engines(self) -> frozenset[EngineInfo]:
        """The living engines."""
        return self.other_engines | {self.me}

    @property
    def other_engines(self) -> frozenset[EngineInfo]:
        """The living engines but this one."""
        with self._lock:
            return frozenset(link.peer for link in self._links if link.peer is not None)

    def find(self) -> list[int]:
        """Return the pids of the living engines, without joining them."""
        pids = []
        for path in self._sockets():
            if (connection := _connect(path)) is not None:
                connection.close()
                pids.append(pid_of(path))
        return pids

    def join(self) -> None:
        """Connect to the other engines, and accept connections from now on.

        Raises:
            HostError: One of them does not answer.
            OSError: The machine lacks descriptors, threads or memory.
        """
        path = self._run / f"engine-{self.me.pid}.sock"
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen()
        self._listener.settimeout(0)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._stop, selectors.EVENT_READ, None)
        for other in self._sockets():
            if other != path and (connection := _connect(other)) is not None:
                self._greet(connection)
        start(self._thread)

    def announce(self, luns: frozenset[int]) -> None:
        """Tell the other engines which LUNs this engine knows from now on.

        An engine that does not read is not waited for: it may go on with an old assignment, but a LUN that
        has an owner is locked.
        """
        with self._lock:
            self.me = replace(self.me, luns=luns)
            for link in self._links:
                with contextlib.suppress(OSError):
                    link.tell(self.me)

    def leave(self) -> None:
        """Close all connections; the other engines notice that and take over."""
        if self._listener is None:
            return
        os.eventfd_write(self._stop, 1)
        if self._thread.is_alive():
            self._thread.join()
        (self._run / f"engine-{self.me.pid}.sock").unlink(missing_ok=True)
        self._listener.close()
        with self._lock:
            while self._links:
                self._links.pop().close()
        self._selector.close()
        os.close(self._stop)

    def _sockets(self) -> list[Path]:
        return sorted(self._run.glob("engine-*.sock"))

    def _greet(self, connection: socket.socket) -> None:
        """Exchange greetings with an engine, and watch the connection from then on."""
        link, me = Link(connection), self.me
        try:
            peer = link.greet(me)
        except HostError:
            link.close()
            raise
        if peer is None:
            link.close()
            return
        with self._lock:
            try:
                self._selector.register(link, selectors.EVENT_READ, link)
            except OSError:
                link.close()  # an engine whose death would not be noticed is not added
                raise
            self._links.add(link)
            if self.me != me:  # `announce` was called during the greeting
                with contextlib.suppress(OSError):
                    link.tell(self.me)

    def _watch(self) -> None:
        repeat(self._process_events, "watching the other engines", pause=_PAUSE)

    def _process_events(self) -> bool:
        """Wait for events, process them and report a change; False when this engine leaves.

        An event whose processing has failed comes again. Deaths are processed first, so they are noticed
        even if there is no descriptor for a new engine.
        """
        keys = [] if self._untold else [key for key, _ in self._selector.select()]
        for key in sorted(keys, key=lambda each: each.data is None):
            if key.fileobj == self._stop:
                return False
            if key.data is None:
                self._accept()
            else:
                self._read(key.data)
            self._untold = True
        if self._untold:
            self._changed()
        self._untold = False
        return True

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - registered by join
        with contextlib.suppress(BlockingIOError, HostError):
            connection, _ = self._listener.accept()  # after EMFILE it stays in the queue
            self._greet(connection)

    def _read(self, link: Link) -> None:
        """Read the news of an engine; remove it when its connection has ended."""
        if not link.receive():
            with self._lock:
                self._selector.unregister(link)
                self._links.discard(link)
            link.close()


def _connect(path: Path) -> socket.socket | None:
    """Connect to an engine; None if it is dead: its socket and its control socket are then removed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT)
    try:
        connection.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        path.with_suffix(".control").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return None
    except OSError as error:
        connection.close()
        raise HostError(f"{path}: {error.strerror or error}") from error
    return connection
