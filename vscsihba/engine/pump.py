"""The pump: one thread that serves the rings of many logical units.

It waits on all of them at once, lets each drain, and publishes a batch of answers with
one notification. It knows what is ready, not what a command means: that is `lun`.
"""

import logging
import select
import threading
from typing import Protocol

from vscsihba.engine.mailbox import Mailbox
from vscsihba.errors import TransportError

log = logging.getLogger(__name__)


class Served(Protocol):
    """What the pump serves: a ring and whoever answers it."""

    name: str

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def serve(self) -> None:
        """Take the notification back, answer what waits, publish.

        Raises:
            TransportError: The ring cannot be served any longer.
        """

    def failed(self, error: TransportError) -> None:
        """Be told that the pump has let go because of `error`."""


class Pump:
    """Serve rings until told to stop.

    All of a `Served` runs on the pump's thread; other threads reach it through `mailbox`.
    """

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self._epoll = select.epoll()
        self._epoll.register(self.mailbox, select.EPOLLIN)
        self._served: dict[int, Served] = {}
        self._running = False
        self._thread: threading.Thread | None = None

    def start(self, name: str = "pump") -> None:
        """Run the pump on a thread of its own."""
        self._running = True
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the thread; what is being served stays open."""
        self.mailbox.post(self._halt)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        self.mailbox.close()

    def _halt(self) -> None:
        self._running = False

    def add(self, served: Served) -> None:
        """Begin to serve, looking once at what is there already. On the pump's thread only."""
        fd = served.fileno()
        self._served[fd] = served
        self._epoll.register(fd, select.EPOLLIN)
        self._serve(fd)

    def remove(self, served: Served) -> None:
        """Stop serving; harmless if it was let go before. On the pump's thread only."""
        fd = served.fileno()
        if self._served.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        """Serve until `stop`."""
        mailbox = self.mailbox.fileno()
        while self._running:
            for fd, _events in self._epoll.poll():
                if fd == mailbox:
                    self.mailbox.run()
                else:
                    self._serve(fd)

    def _serve(self, fd: int) -> None:
        served = self._served.get(fd)
        if served is None:
            return
        try:
            served.serve()
        except TransportError as error:
            self.remove(served)
            served.failed(error)
