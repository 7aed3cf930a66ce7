"""The pump: one thread that serves the rings of many logical units.

It waits on all of them at once and lets each answer what waits in it. Those that were busy
just now are looked at again before the thread sleeps, for as long as that pays (`polling`).
It knows what is ready, not what a command means: that is `lun`.

An exception of what serves one ring fails that ring alone. One of the pump's own ends the process, so
that another engine takes over: a dead pump serves nobody, and its process would still own everything.
"""

import contextlib
import logging
import select
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.completion_affinity import CompletionAffinity, fixed_affinity
from vscsihba.engine.serving.polling import Polling, longest_spin
from vscsihba.errors import EngineFaultError, TransportError
from vscsihba.threads import Died, VitalThread, end_process, start

log = logging.getLogger(__name__)

_POLLS: Final = 32
"""Looks at the rings between two at the clock, which may be a slow one."""
_ROUND: Final = 4
"""Times that something was served between two looks at the clock."""
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

    All of a `Served` runs on the pump's thread; other threads reach it through `calls`.

    Args:
        poll: Seconds to look for more commands before sleeping, at most; 0 to sleep at once;
            None for what the environment says (`vscsihba.engine.serving.polling.longest_spin`).
        died: Called, on the dying thread, if the pump itself fails; by default the process ends at once.

    Raises:
        UsageError: The environment says what cannot be meant.
    """

    def __init__(self, poll: float | None = None, *, died: Died = end_process) -> None:
        self._died = died
        self._polling = Polling(longest_spin() if poll is None else poll)
        self._fixed_affinity = fixed_affinity()
        self._affinity: CompletionAffinity | None = None
        self.calls = CallQueue()
        self._epoll = select.epoll()
        self._epoll.register(self.calls, select.EPOLLIN)
        self._served: dict[int, Served] = {}
        self._active: dict[int, Served] = {}
        self._rings: tuple[Served, ...] = ()  # the hot ones again, so that nobody has to collect them
        self._round_began = 0.0
        self._round_left = _ROUND
        self._round_commands = 0
        self._unread = False
        self._running = False
        self._thread: VitalThread | None = None

    def start(self, name: str = "pump") -> None:
        """Run the pump on a thread of its own.

        Raises:
            OSError: There is no room for another thread.
        """
        self._running = True
        thread = VitalThread(self.run, name, died=self._died)
        start(thread)
        self._thread = thread

    def stop(self) -> None:
        """Stop and wait for the thread; what is being served stays open."""
        self.calls.post(self._halt)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        self.calls.close()

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
            self._deactivate(fd)
            with contextlib.suppress(OSError):  # it was never registered: `add` has failed
                self._epoll.unregister(fd)

    def adapt_completions(self, tell: Callable[[bool], None] | None) -> None:
        """Find out from now on where commands are best completed, or leave that to others.

        On the pump's thread only.

        Args:
            tell: As of `completion_affinity.CompletionAffinity`; None: another engine does it for this HBA.
        """
        if tell is None:
            self._affinity = None
        elif self._affinity is None:
            self._affinity = CompletionAffinity(tell, fixed=self._fixed_affinity)

    def run(self) -> None:
        """Serve until `stop`."""
        calls = self.calls.fileno()
        while self._running:
            for fd, _events in self._epoll.poll(self._serve_active()):
                if fd == calls:
                    self.calls.run()
                else:
                    self._wake(fd)

    def _wake(self, fd: int) -> None:
        """Serve a ring that has notified us."""
        served = self._served.get(fd)
        if served is not None and self._acknowledge(served):
            self._active[fd] = served
            self._rings = tuple(self._active.values())
            self._serve(served)

    def _deactivate(self, fd: int) -> None:
        self._active.pop(fd, None)
        self._rings = tuple(self._active.values())

    def _serve_active(self) -> float | None:
        """Serve the rings that were busy, as long as they are; return how long to wait for all of them."""
        turn = time.monotonic() + _TURN
        while self._active and self._running:
            if not self._busy_poll():
                self._go_idle()
            elif self._round_began > turn:
                return 0
        return None if self._running else 0

    def _busy_poll(self) -> bool:
        """Look until something waits in a busy ring, and serve it; False if looking longer does not pay."""
        waiting = _waiting(self._rings)
        if not waiting and self._polling.window:
            waiting = self._spin()
        if self.calls.pending():  # what was posted before a command came is done before it
            self.calls.run()
            waiting = _waiting(self._rings)
        for served in waiting:
            self._serve(served)
        self._unread = self._unread or bool(waiting)
        return bool(waiting)

    def _spin(self) -> Sequence[Served]:
        """Look for as long as that may pay; return the rings in which something waits.

        It does not pay with something under way on other threads: they need the interpreter's lock.
        """
        rings, clock, until = self._rings, time.monotonic, 0.0
        waiting: Sequence[Served] = ()
        while not (waiting or self.calls.pending() or any(served.busy for served in rings)):
            waiting = _waiting(rings, _POLLS)
            if not waiting and (now := clock()) > (until := until or now + self._polling.window):
                break
        return waiting

    def _go_idle(self) -> None:
        """Make ready to sleep: notifications of what was served already would wake us at once."""
        for fd, served in tuple(self._active.items()):
            if not self._unread or (self._acknowledge(served) and not served.pending()):
                self._deactivate(fd)
        self._unread = False

    def _serve(self, served: Served) -> None:
        """Let a ring answer, and count what that took; not at each time, for a clock may be a slow one."""
        try:
            self._round_commands += served.serve()
        except Exception as error:  # noqa: BLE001 - the barrier between rings
            self._let_go(served, error)
            return
        self._round_left -= 1
        if not self._round_left:
            self._end_round()

    def _end_round(self) -> None:
        now = time.monotonic()
        spent, commands = now - self._round_began, self._round_commands
        self._round_began, self._round_left, self._round_commands = now, _ROUND, 0
        self._polling.note(spent, commands)
        if self._affinity is not None:
            self._affinity.note(spent, commands)

    def _acknowledge(self, served: Served) -> bool:
        try:
            served.acknowledge()
        except Exception as error:  # noqa: BLE001 - the barrier between rings
            self._let_go(served, error)
            return False
        return True

    def _let_go(self, served: Served, error: Exception) -> None:
        self.remove(served)
        if not isinstance(error, TransportError):
            log.error("%s: its server has failed", served.name, exc_info=error)
            error = EngineFaultError(error)
        served.failed(error)


def _waiting(rings: Sequence[Served], polls: int = 1) -> Sequence[Served]:
    """Look so many times at most; return the rings in which something waits."""
    for _ in range(polls):
        for ring in rings:
            if ring.pending():
                return rings if len(rings) == 1 else [served for served in rings if served.pending()]
    return ()
