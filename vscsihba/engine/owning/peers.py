"""The other engines of an HBA: who is there, noticed at once when one comes, changes or dies.

Each engine listens on a Unix socket in the HBA's run directory and holds a connection
to every other one. A connection says who is at its ends and which LUNs that knows, and
its end is the death of one of them: the kernel closes a killed process's sockets.

The thread that watches the connections survives what the machine lacks for a moment; if it dies, its
process ends: an engine that notices nobody's death takes nothing over.

Knows that engines have LUNs, not what is done about it.
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
from vscsihba.errors import HostError
from vscsihba.threads import VitalThread, repeat, start

_TIMEOUT = 30.0

_PAUSE = 0.1
"""Seconds before another try, where the machine lacks descriptors or memory."""


class Peers:
    """The engines of one HBA, this one included.

    Args:
        run: The HBA's run directory.
        luns: The LUNs that this engine knows.
        changed: Called on a thread of this object's when `engines` has changed.
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
        """Every engine that is there now."""
        return self.other_engines | {self.me}

    @property
    def other_engines(self) -> frozenset[EngineInfo]:
        """Every engine but this one."""
        with self._lock:
            return frozenset(link.peer for link in self._links if link.peer is not None)

    def find(self) -> list[int]:
        """Return the pids of the engines that are there, without joining them."""
        found = []
        for path in self._sockets():
            if (connection := _connect(path)) is not None:
                connection.close()
                found.append(_pid(path))
        return found

    def join(self) -> None:
        """Make this engine known to the others, and them to it.

        Raises:
            HostError: One of them does not answer.
            OSError: The machine lacks something.
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
        """Let the others know which LUNs this engine knows from now on.

        One that does not listen is not waited for: it asks nobody which LUNs are its own, and whoever
        owns one has its lock.
        """
        with self._lock:
            self.me = replace(self.me, luns=luns)
            for link in self._links:
                with contextlib.suppress(OSError):
                    link.tell(self.me)

    def leave(self) -> None:
        """Close every connection: the others see it and take over."""
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
        """Exchange one line with a peer and watch the connection from then on."""
        link, me = Link(connection), self.me
        try:
            found = link.greet(me)
        except HostError:
            link.close()
            raise
        if found is None:
            link.close()
            return
        with self._lock:
            try:
                self._selector.register(link, selectors.EVENT_READ, link)
            except OSError:
                link.close()  # one whose death would not be noticed is not known either
                raise
            self._links.add(link)
            if self.me != me:  # announced while the two were greeting each other
                with contextlib.suppress(OSError):
                    link.tell(self.me)

    def _watch(self) -> None:
        repeat(self._take_turn, "watching the other engines", pause=_PAUSE)

    def _take_turn(self) -> bool:
        """Wait for news, take them in and tell of them; False if this engine leaves.

        News that could not be taken in are there again the next time. Deaths come first: they are noticed
        even while there is no descriptor for an engine that comes.
        """
        keys = [] if self._untold else [key for key, _ in self._selector.select()]
        for key in sorted(keys, key=lambda each: each.data is None):
            if key.fileobj == self._stop:
                return False
            if key.data is None:
                self._admit()
            else:
                self._listen_to(key.data)
            self._untold = True
        if self._untold:
            self._changed()
        self._untold = False
        return True

    def _admit(self) -> None:
        assert self._listener is not None  # noqa: S101 - registered by join
        with contextlib.suppress(BlockingIOError, HostError):
            connection, _ = (
                self._listener.accept()
            )  # EMFILE: it stays in the queue until a descriptor is free
            self._greet(connection)

    def _listen_to(self, link: Link) -> None:
        """Take in what a peer says, and forget it when its connection has ended."""
        if not link.hear():
            with self._lock:
                self._selector.unregister(link)
                self._links.discard(link)
            link.close()


def _connect(path: Path) -> socket.socket | None:
    """Connect to an engine; None if nobody is behind the socket any more: the files of the dead are removed.

    An engine's control socket (`vscsihba.engine.owner`) is there only while this one is.
    """
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


def _pid(path: Path) -> int:
    return int(path.stem.removeprefix("engine-"))
