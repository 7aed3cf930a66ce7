"""The engine processes of an HBA: the configured number of them, replaced when they die.

A thread watches the processes. One that has died is replaced at once the first time, and after a growing
pause when engines die again and again; the owner of the pool tells a new engine what to serve. Where the
machine has no process, descriptor or memory for a moment, the start is retried. If the watching thread dies
all the same, the service ends, and the next service finds the engines that run.

Knows the control connection of an engine, nothing of LUNs.
"""

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from vscsihba.errors import VscsihbaError
from vscsihba.threads import VitalThread, repeat, start

log = logging.getLogger(__name__)

PAUSES: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before a dead engine is replaced: after the first death, the second, and so on."""

BUSY: Final = 2.0
"""Seconds that the watching thread waits for a change to end before it replaces dead engines during it."""

STEADY: Final = 60.0
"""Seconds of life after which an engine's death counts as the first again."""


class EngineHandle(Protocol):
    """One engine process; `vscsihba.daemon.engine.Engine` implements this."""

    pid: int
    since: float

    @property
    def alive(self) -> bool:
        """Whether the process runs."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process ends."""

    def ask(self, verb: str, arguments: Mapping[str, object]) -> Any:
        """Send a request and return the answer."""

    def end(self) -> None:
        """Tell the process to end, wait for that, and release it."""

    def close(self) -> None:
        """Release the process and leave it alone."""


class EnginePool:
    """The engine processes of one HBA.

    Args:
        hba_id: 0..255.
        size: The wanted number of engines.
        start: Starts an engine.
        on_start: Tells a new engine what to serve, as far as that can be served; called with `lock` held.
        retry: Retries what failed and returns whether nothing fails now; called with `lock` held.
        on_start_during_change: Tells a new engine what to serve while a long change holds `lock`; returns
            False where no engine may be started during that change. Called with `start_lock` held.
        running: The engines that run already, the oldest first.

    Attributes:
        lock: Held while engines are started, ended or sent requests, except during a change.
        start_lock: Held while engines are started and sent requests during a change, never while
            waiting for `lock`.
        newcomers: Engines that were started during a change, and do not know its LUN yet.
        size: The wanted number of engines.
    """

    def __init__(
        self,
        hba_id: int,
        size: int,
        start: Callable[[int], EngineHandle],
        *,
        on_start: Callable[[EngineHandle], None],
        retry: Callable[[], bool],
        on_start_during_change: Callable[[EngineHandle | None], bool],
        running: Sequence[EngineHandle],
    ) -> None:
        self.lock = threading.RLock()
        self.start_lock = threading.RLock()
        self.newcomers: list[EngineHandle] = []
        self._guard = threading.RLock()
        self.size = size
        self._id = hba_id
        self._start = start
        self._on_start = on_start
        self._retry = retry
        self._on_start_during_change = on_start_during_change
        self._engines = list(running)
        self._deaths = self._failed_retries = 0
        self._due: float | None = None
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watcher = VitalThread(self._watch, f"engines{hba_id}")

    @property
    def engines(self) -> list[EngineHandle]:
        """The engines, the oldest first; one may have died just now."""
        return list(self._engines)

    def watch(self) -> None:
        """Start the watching thread.

        Raises:
            OSError: No thread can be started.
        """
        start(self._watcher)

    def ensure(self) -> None:
        """Reap dead engines and start engines until there are `size`.

        Raises:
            UsageError, HostError: An engine cannot be started; those that were started stay.
        """
        with self.lock, self.start_lock:
            self.reap()
            while len(self._engines) < self.size:
                self._on_start(self._begin())
            self._wake_watcher()

    def _begin(self) -> EngineHandle:
        engine = self._start(self._id)
        log.info("engine %d of HBA %d has started", engine.pid, self._id)
        self._engines.append(engine)
        return engine

    def shrink(self, size: int) -> None:
        """End the youngest engines until there are no more than `size`.

        Raises:
            HostError: An engine does not end.
        """
        with self.lock:
            while len(self._engines) > size:
                self._engines[-1].end()
                self._engines.pop()
            self.size = size
            self._wake_watcher()

    def reap(self) -> None:
        """Release dead engines; the watching thread replaces them soon."""
        with self._guard:
            for engine in [engine for engine in self._engines if not engine.alive]:
                log.warning("engine %d of HBA %d has ended", engine.pid, self._id)
                self._engines.remove(engine)
                engine.close()
                if time.time() - engine.since > STEADY:
                    self._deaths = 0
                self._schedule(self._deaths)
                self._deaths += 1

    def retry_later(self) -> None:
        """Schedule a call of `retry`, after a pause that grows with the number of failed retries."""
        with self.lock:
            self._schedule(self._failed_retries)
            self._failed_retries += 1

    def close(self) -> None:
        """End the watching thread and release the engines; they keep running."""
        self._closed = True
        self._wake_watcher()
        if self._watcher.is_alive():
            self._watcher.join()
        for engine in self._engines:
            engine.close()
        self._engines.clear()
        os.close(self._wake)

    # The watching thread.

    def _watch(self) -> None:
        repeat(self._watch_once, f"watching the engines of HBA {self._id}")

    def _watch_once(self) -> bool:
        """Wait for work and do it; return False once the pool is closed."""
        self._wait()
        if self._closed:
            return False
        if self.lock.acquire(timeout=BUSY):
            try:
                self._reconcile(time.monotonic())
            finally:
                self.lock.release()
        else:
            self._reconcile_during_change()
        return not self._closed

    def _reconcile_during_change(self) -> None:
        """Replace dead engines while a change waits for an engine, perhaps for minutes."""
        with self.start_lock:
            if not self._on_start_during_change(None):
                return
            self.reap()
            if self._due is None or self._due > time.monotonic():
                return
            self._due = None
            try:
                while len(self._engines) < self.size:
                    engine = self._begin()
                    self.newcomers.append(engine)
                    self._on_start_during_change(engine)
                self._schedule(self._failed_retries)  # for LUNs that could not be served
            except (VscsihbaError, OSError, MemoryError) as error:
                text = str(error) or type(error).__name__
                log.error("no engine for HBA %d: %s", self._id, text)  # noqa: TRY400 - it says all
                self._schedule(self._deaths)

    def _wait(self) -> None:
        """Wait until an engine dies, a retry is due, or another thread calls `_wake_watcher`."""
        with selectors.DefaultSelector() as selector:
            with self._guard:
                selector.register(self._wake, selectors.EVENT_READ)
                for engine in self._engines:
                    selector.register(engine, selectors.EVENT_READ)
                due = self._due
            ready = selector.select(None if due is None else max(0.0, due - time.monotonic()))
            if any(key.fileobj == self._wake for key, _ in ready):
                os.eventfd_read(self._wake)

    def _reconcile(self, now: float) -> None:
        """Reap dead engines; if a retry is due, replace them and retry what failed."""
        self.reap()
        if self._due is not None and self._due <= now:
            self._due = None
            try:
                self.ensure()
                succeeded = self._retry()
            except (VscsihbaError, OSError, MemoryError) as error:
                text = str(error) or type(error).__name__
                log.error("no engine for HBA %d: %s", self._id, text)  # noqa: TRY400 - it says all
                succeeded = False
            if succeeded:
                self._failed_retries = 0
            else:
                self.retry_later()

    def _schedule(self, times: int) -> None:
        """Schedule the next try after a pause that grows with `times`, unless one is due sooner."""
        due = time.monotonic() + PAUSES[min(times, len(PAUSES) - 1)]
        self._due = due if self._due is None else min(self._due, due)
        self._wake_watcher()

    def _wake_watcher(self) -> None:
        os.eventfd_write(self._wake, 1)
