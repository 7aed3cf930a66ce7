"""The pump: one thread that serves the rings of many logical units.

It waits on all of them at once and lets each answer what waits in it. Those that were busy
just now are looked at again before the thread sleeps, for as long as that pays (`polling`).
It knows what is ready, not what a command means: that is `lun`.
"""

import logging
import select
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from vscsihba.engine.mailbox import Mailbox
from vscsihba.engine.polling import Polling
from vscsihba.errors import TransportError

log = logging.getLogger(__name__)

POLL: Final = 0.001
"""Seconds to look at a ring before sleeping, at most."""
_LOOKS: Final = 32
"""Looks at the rings between two at the clock, which may be a slow one."""
_TURN: Final = 0.001
"""Seconds after which busy rings let the others be looked at."""


class Served(Protocol):
    """What the pump serves: a ring and whoever answers it."""

    name: str

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def acknowledge(self) -> None:
        """Take the notification back, before `serve` looks.

        Raises:
            TransportError: The ring cannot be served any longer.
        """

    def serve(self) -> int:
        """Answer what waits, or some of it, and publish; return how many commands that were.

        Raises:
            TransportError: The ring cannot be served any longer.
        """

    def pending(self) -> bool:
        """Tell whether `serve` has something to do: one load."""

    @property
    def busy(self) -> bool:
        """Tell whether something is under way on other threads."""

    def failed(self, error: TransportError) -> None:
        """Be told that the pump has let go because of `error`."""


class Pump:
    """Serve rings until told to stop.

    All of a `Served` runs on the pump's thread; other threads reach it through `mailbox`.

    Args:
        poll: Seconds to look for more commands before sleeping, at most; 0 to sleep at once.
    """

    def __init__(self, poll: float = POLL) -> None:
        self.mailbox = Mailbox()
        self._epoll = select.epoll()
        self._epoll.register(self.mailbox, select.EPOLLIN)
        self._served: dict[int, Served] = {}
        self._hot: dict[int, Served] = {}
        self._polling = Polling(poll)
        self._last = 0.0
        self._unread = False
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
        self._wake(fd)

    def remove(self, served: Served) -> None:
        """Stop serving; harmless if it was let go before. On the pump's thread only."""
        fd = served.fileno()
        if self._served.pop(fd, None) is not None:
            self._hot.pop(fd, None)
            self._epoll.unregister(fd)

    def run(self) -> None:
        """Serve until `stop`."""
        mailbox = self.mailbox.fileno()
        while self._running:
            for fd, _events in self._epoll.poll(self._watch()):
                if fd == mailbox:
                    self.mailbox.run()
                else:
                    self._wake(fd)

    def _wake(self, fd: int) -> None:
        """Serve a ring that has notified us."""
        served = self._served.get(fd)
        if served is not None and self._acknowledge(served):
            self._hot[fd] = served
            self._serve(served)

    def _watch(self) -> float | None:
        """Serve the rings that were busy, as long as they are; return how long to wait for all of them."""
        turn = self._last + _TURN
        while self._hot and self._running:
            if not self._look():
                self._cool()
            elif self._last > turn:
                return 0
        return None if self._running else 0

    def _look(self) -> bool:
        """Look until something waits in a busy ring, and serve it; False if looking longer does not pay.

        Nor does it with something under way on other threads: they need the interpreter's lock.
        """
        rings, clock = tuple(self._hot.values()), time.monotonic
        window = 0.0 if any(served.busy for served in rings) else self._polling.window
        until = self._last + window
        waiting = _waiting(rings)
        while not waiting and window and clock() < until and not self.mailbox.pending():
            waiting = _waiting(rings, _LOOKS)
        if self.mailbox.pending():  # what was posted before a command came is done before it
            self.mailbox.run()
            waiting = _waiting(tuple(self._hot.values()))
        self._unread = self._unread or bool(waiting)
        for served in waiting:
            self._serve(served)
        return bool(waiting)

    def _cool(self) -> None:
        """Make ready to sleep: notifications of what was served already would wake us at once."""
        for fd, served in tuple(self._hot.items()):
            if not self._unread or (self._acknowledge(served) and not served.pending()):
                self._hot.pop(fd, None)
        self._unread = False

    def _serve(self, served: Served) -> None:
        """Let a ring answer, and count what that took."""
        try:
            count = served.serve()
        except TransportError as error:
            self._let_go(served, error)
            return
        now = time.monotonic()
        self._polling.note(now - self._last, count)
        self._last = now

    def _acknowledge(self, served: Served) -> bool:
        try:
            served.acknowledge()
        except TransportError as error:
            self._let_go(served, error)
            return False
        return True

    def _let_go(self, served: Served, error: TransportError) -> None:
        self.remove(served)
        served.failed(error)


def _waiting(rings: Sequence[Served], looks: int = 1) -> list[Served]:
    """Look so many times at most; return the rings in which something waits."""
    for _ in range(looks):
        for ring in rings:
            if ring.pending():
                return [served for served in rings if served.pending()]
    return []
