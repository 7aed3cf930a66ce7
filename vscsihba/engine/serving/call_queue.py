"""Calls from other threads into the serving thread; one wake-up serves many calls.

A call that raises is a bug: it is logged, or fails its LUN. The thread goes on, as it serves many units.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

log = logging.getLogger(__name__)

Failed = Callable[[Exception], None]
"""Called, on the serving thread, with the exception of a call."""


def _log(error: Exception) -> None:
    log.error("a call into the serving thread failed", exc_info=error)


class Calls(Protocol):
    """Queues calls for the serving thread: those of all LUNs (`CallQueue`) or of one (`GuardedCalls`)."""

    def post(self, call: Callable[[], None]) -> None:
        """Have the serving thread make `call` soon, in the order of posting."""

    def later(self, call: Callable[[], None]) -> None:
        """Make `call` at the end of the `run` under way; for the serving thread, from within a call."""


class GuardedCalls:
    """The calls of one LUN into the serving thread; one that raises fails this LUN and no other.

    Args:
        calls: Queues them.
        failed: Called, on the serving thread, with the exception of a call.

    Attributes:
        post: See `Calls.post`.
        later: See `Calls.later`.
    """

    def __init__(self, calls: "CallQueue", failed: Failed) -> None:
        self._failed = failed
        self.post = partial(calls.post, failed=failed)
        self.later = partial(calls.later, failed=failed)

    def make(self, call: Callable[[], None]) -> None:
        """Make a call now."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the barrier between LUNs
            self._failed(error)


class CallQueue:
    """A queue of calls with a descriptor to wait on.

    Any thread may `post`; the serving thread calls `run`. The wake-up is written only if none is
    pending. `run` clears the mark before it reads the queue, and `post` reads the mark after it has added
    its call, so no call is left behind.

    Attributes:
        pending: Returns the number of calls that wait for `run`, without a system call.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[[], None], Failed]] = deque()
        self.pending = self._calls.__len__  # no function of ours: the pump calls it while it polls
        self._last: list[tuple[Callable[[], None], Failed]] = []
        self._lock = threading.Lock()
        self._marked = self._closed = False
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor; readable means that `run` has something to do."""
        return self._event

    def post(self, call: Callable[[], None], failed: Failed = _log) -> None:
        """Have the serving thread make `call` soon, in the order of posting; `failed` gets its exception."""
        self._calls.append((call, failed))
        if self._marked:
            return
        with self._lock:  # a closed descriptor's number may be reused
            if not (self._marked or self._closed):
                self._marked = True
                os.eventfd_write(self._event, 1)

    def later(self, call: Callable[[], None], failed: Failed = _log) -> None:
        """Make `call` at the end of the `run` under way; for the serving thread, from within a call."""
        self._last.append((call, failed))

    def run(self) -> None:
        """Make the calls posted so far, then those of `later`.

        A call that is posted meanwhile is left to the next `run`, so that rings do not wait.
        """
        try:  # noqa: SIM105 - `contextlib.suppress` takes as long again as the system call
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass
        self._run()

    def run_after(self, step: Callable[[], None], failed: Failed) -> None:
        """Call `step`, which posts calls, then `run`: the wake-up for these calls is saved.

        For the serving thread.

        Args:
            step: The function.
            failed: Called with its exception.
        """
        written = self._marked
        self._marked = True
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the barrier between LUNs
            _report(error, failed)
        if written:
            self.run()
        else:
            self._run()

    def _run(self) -> None:
        self._marked = False
        for _ in range(len(self._calls)):
            call, failed = self._calls.popleft()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the barrier between LUNs
                _report(error, failed)
        last, self._last = self._last, []
        for call, failed in last:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - likewise
                _report(error, failed)

    def close(self) -> None:
        """Close the descriptor; calls that are posted afterwards are never made."""
        with self._lock:
            self._closed = True
            os.close(self._event)


def _report(error: Exception, failed: Failed) -> None:
    try:
        failed(error)
    except Exception:
        log.exception("a LUN could not be failed")
