"""The pump: one thread that serves the rings of many logical units.

It waits on all of them at once and serves each ring that has commands. Rings that had commands just now are
*active*: the thread polls them before it sleeps, for as long as that is quicker (`polling`). The pump knows
which ring has commands; `lun` knows how to execute them. It also waits on the descriptors of handlers that
finish their verbs on this thread (`vscsihba.handlers.base.Pollable`), and polls them too while commands of
the active rings are under way there.

An exception in the code of one ring fails that ring alone. An exception of the pump itself ends the process,
so that another engine takes over: with a dead pump the process would serve no LUN and still own all of them.
"""

import contextlib
import logging
import select
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from vscsihba.engine.serving.call_queue import CallQueue, Failed
from vscsihba.engine.serving.completion_affinity import CompletionAffinity, fixed_affinity
from vscsihba.engine.serving.polling import Polling, longest_spin
from vscsihba.errors import EngineFaultError, TransportError
from vscsihba.handlers.base import Pollable
from vscsihba.threads import Died, VitalThread, end_process, start

log = logging.getLogger(__name__)

_POLLS: Final = 32
"""Polls of the rings between two readings of the clock, which may be slow."""
_FEW_POLLS: Final = 4
"""Polls of the rings between two polls of handlers, each of which is a system call."""
_ROUND: Final = 4
"""Calls of `Served.serve` in a round, that is, between two readings of the clock."""
_TURN: Final = 0.001
"""Seconds after which active rings give way to the others."""


class Served(Protocol):
    """A ring with the code that answers its commands."""

    name: str

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def acknowledge(self) -> None:
        """Clear the notification, before `serve` reads the ring.

        Raises:
            TransportError: The ring cannot be served any longer.
        """

    def serve(self) -> int:
        """Answer waiting commands, or some of them, and publish; return their number.

        Raises:
            TransportError: The ring cannot be served any longer.
        """

    def pending(self) -> bool:
        """Return whether `serve` has something to do: one load."""

    @property
    def busy(self) -> bool:
        """Whether commands are under way."""

    @property
    def on_threads(self) -> bool:
        """Whether commands are under way on other threads."""

    def failed(self, error: TransportError) -> None:
        """Note that the pump has stopped serving it because of `error`."""


class Pump:
    """Serves rings on a thread of its own, until `stop`.

    Each `Served` is used on the pump's thread only; other threads reach it through `calls`.

    Args:
        poll: Seconds to spin before sleeping, at most; 0 to sleep at once; None for the value of the
            environment (`vscsihba.engine.serving.polling.longest_spin`).
        died: Called, on the dying thread, if the pump itself fails; by default the process ends at once.

    Attributes:
        calls: Calls into the pump's thread.

    Raises:
        UsageError: The environment has a value that is not valid.
    """

    def __init__(self, poll: float | None = None, *, died: Died = end_process) -> None:
        self._died = died
        self._polling = Polling(longest_spin() if poll is None else poll)
        self._fixed_affinity = fixed_affinity()
        self._affinity: CompletionAffinity | None = None
        self.calls = CallQueue()
        self._epoll = select.epoll()
        self._epoll.register(self.calls, select.EPOLLIN)
        self._answers = select.epoll()  # the watched ones again, to be polled without the rings
        self._served: dict[int, Served] = {}
        self._watched: dict[int, tuple[Pollable, Failed]] = {}
        self._active: dict[int, Served] = {}
        self._rings: tuple[Served, ...] = ()  # the active ones again, as a tuple
        self._round_began = 0.0
        self._round_left = _ROUND
        self._round_commands = 0
        self._unread = False
        self._running = False
        self._thread: VitalThread | None = None

    def start(self, name: str = "pump") -> None:
        """Start the thread.

        Raises:
            OSError: The machine has no room for another thread.
        """
        thread = VitalThread(self.run, name, died=self._died)
        start(thread)
        self._thread = thread

    def stop(self) -> None:
        """Stop and wait for the thread; the rings stay open."""
        self.calls.post(self.halt)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        self._answers.close()
        self.calls.close()

    def halt(self) -> None:
        """Have `run` return. For the pump's thread only."""
        self._running = False

    def add(self, served: Served) -> None:
        """Begin to serve, with the commands that wait already. For the pump's thread only."""
        fd = served.fileno()
        self._served[fd] = served
        self._epoll.register(fd, select.EPOLLIN)
        self._wake(fd)

    def remove(self, served: Served) -> None:
        """Stop serving; without effect if it is not served. For the pump's thread only."""
        fd = served.fileno()
        if self._served.pop(fd, None) is not None:
            self._deactivate(fd)
            with contextlib.suppress(OSError):  # `add` has failed, so it is not registered
                self._epoll.unregister(fd)

    def watch(self, pollable: Pollable, failed: Failed) -> None:
        """Finish the asynchronous verbs of a handler on this thread. For the pump's thread only.

        Args:
            pollable: Has the descriptor to wait on.
            failed: Called with an exception of `Pollable.serve`, when it is not watched any more.
        """
        fd = pollable.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._answers.register(fd, select.EPOLLIN)
        self._watched[fd] = pollable, failed
        pollable.attach()

    def unwatch(self, pollable: Pollable) -> None:
        """Leave the handler to itself; without effect if it is not watched. For the pump's thread only."""
        fd = pollable.fileno()
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._answers.unregister(fd)
            pollable.detach()

    def adapt_completions(self, tell: Callable[[bool], None] | None) -> None:
        """Adapt the CPU on which the kernel completes commands, or leave that to another engine.

        For the pump's thread only.

        Args:
            tell: Tells the kernel (`completion_affinity.CompletionAffinity`); None: another engine does.
        """
        if tell is None:
            self._affinity = None
        elif self._affinity is None:
            self._affinity = CompletionAffinity(tell, fixed=self._fixed_affinity)

    def run(self) -> None:
        """Serve until `stop`, or `halt`."""
        self._running, calls = True, self.calls.fileno()
        while self._running:
            for fd, _events in self._epoll.poll(self._serve_active()):
                if fd == calls:
                    self.calls.run()
                elif fd in self._served:
                    self._wake(fd)
                else:
                    self._serve_watched(fd)

    def _serve_watched(self, fd: int) -> None:
        """Finish asynchronous verbs of a handler, and make the calls with their results."""
        if (watched := self._watched.get(fd)) is not None:
            pollable, failed = watched
            self.calls.run_after(pollable.serve, partial(self._fail_watched, pollable, failed))

    def _fail_watched(self, pollable: Pollable, failed: Failed, error: Exception) -> None:
        self.unwatch(pollable)
        failed(error)

    def _wake(self, fd: int) -> None:
        """Serve a ring that has sent a notification."""
        served = self._served[fd]
        if self._acknowledge(served):
            self._active[fd] = served
            self._rings = tuple(self._active.values())
            self._serve(served)

    def _deactivate(self, fd: int) -> None:
        self._active.pop(fd, None)
        self._rings = tuple(self._active.values())

    def _serve_active(self) -> float | None:
        """Serve the active rings until they are idle; return the seconds to wait for all rings.

        A turn is measured from the end of its first round, so that a wake-up for few commands reads no clock.
        """
        began, turn = self._round_began, 0.0
        while self._active and self._running:
            if not self._busy_poll():
                self._go_idle()
            elif not turn:
                turn = self._round_began + _TURN if self._round_began != began else 0.0
            elif self._round_began > turn:
                return 0
        return None if self._running else 0

    def _busy_poll(self) -> bool:
        """Poll the active rings and serve those with commands; False if it is time to sleep."""
        waiting = _waiting(self._rings)
        if not waiting and self._polling.window:
            waiting = self._spin()
        if self.calls.pending():  # calls that were posted before a command are made before it
            self.calls.run()
            waiting = _waiting(self._rings)
        for served in waiting:
            self._serve(served)
        self._unread = self._unread or bool(waiting)
        return bool(waiting)

    def _spin(self) -> Sequence[Served]:
        """Poll the active rings for up to the window of `polling`; return those with commands.

        Also poll the handlers that finish their commands on this thread, while some are under way. Do not
        spin while commands are under way on other threads: those need the interpreter's lock.
        """
        clock, until = time.monotonic, 0.0
        waiting: Sequence[Served] = ()
        while not (waiting or self.calls.pending() or any(served.on_threads for served in self._rings)):
            due = bool(self._watched) and any(served.busy for served in self._rings)
            if due and (answers := self._answers.poll(0)):
                for fd, _events in answers:
                    self._serve_watched(fd)
            waiting = _waiting(self._rings, _FEW_POLLS if due else _POLLS)
            if not waiting and (now := clock()) > (until := until or now + self._polling.window):
                break
        return waiting

    def _go_idle(self) -> None:
        """Prepare to sleep: clear notifications of served commands, which would wake the thread at once."""
        for fd, served in tuple(self._active.items()):
            if not self._unread or (self._acknowledge(served) and not served.pending()):
                self._deactivate(fd)
        self._unread = False

    def _serve(self, served: Served) -> None:
        """Serve a ring and count its commands; the clock, which may be slow, is read once a round."""
        try:
            self._round_commands += served.serve()
        except Exception as error:  # noqa: BLE001 - the barrier between rings
            self._stop_serving(served, error)
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
            self._stop_serving(served, error)
            return False
        return True

    def _stop_serving(self, served: Served, error: Exception) -> None:
        self.remove(served)
        if not isinstance(error, TransportError):
            log.error("%s: internal error", served.name, exc_info=error)
            error = EngineFaultError(error)
        served.failed(error)


def _waiting(rings: Sequence[Served], polls: int = 1) -> Sequence[Served]:
    """Poll the rings up to `polls` times; return those with commands."""
    for _ in range(polls):
        for ring in rings:
            if ring.pending():
                return rings if len(rings) == 1 else [served for served in rings if served.pending()]
    return ()
