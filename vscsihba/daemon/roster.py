"""The roster of an HBA's engine processes: as many as there are to be, replaced when they die.

A thread watches them. One that has died is replaced at once the first time, and with more patience
each time that follows; what its successor is to do, it is told by the owner of the roster. A machine that
lacks processes, descriptors or memory for a moment is asked again; if the thread dies all the same, its
process ends, and the next service finds the engines that are there.

Knows engines by what can be asked of them, nothing of LUNs.
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
"""Seconds before an engine that has died is replaced: for the first time, the second, and so on."""

BUSY: Final = 2.0
"""Seconds that the watching thread waits for a change to end before it replaces the dead beside it."""

STEADY: Final = 60.0
"""Seconds of life after which an engine's death counts as the first again."""


class Member(Protocol):
    """An engine process; `vscsihba.daemon.engine.Engine` is one."""

    pid: int
    since: float

    @property
    def alive(self) -> bool:
        """It has not ended."""

    def fileno(self) -> int:
        """Return a descriptor that is readable once it has ended."""

    def ask(self, verb: str, arguments: Mapping[str, object]) -> Any:
        """Have it do something."""

    def end(self) -> None:
        """Have it end, wait for that, and let go of it."""

    def close(self) -> None:
        """Let go of it."""


class Roster:
    """The engine processes of one HBA.

    Args:
        hba_id: 0..255.
        size: How many there are to be.
        start: Starts one more.
        welcome: Tells a new one what it is to do, as far as that goes; called with the lock held.
        mend: Tries again what did not go, and tells whether all is well now; likewise.
        beside: Likewise tells a new one what it is to do, while `lock` is held by a change that takes long;
            returns False where nothing may be done beside it. Called with `aside` held.
        found: Those that are there already, the eldest first.

    Attributes:
        lock: Held while members come, go, or are told anything, except beside a change.
        aside: Held while members come and are told anything beside a change, never while waiting for `lock`.
        newcomers: Members that have come beside a change, and know nothing of it yet.
        size: How many there are to be.
    """

    def __init__(
        self,
        hba_id: int,
        size: int,
        start: Callable[[int], Member],
        *,
        welcome: Callable[[Member], None],
        mend: Callable[[], bool],
        beside: Callable[[Member | None], bool],
        found: Sequence[Member],
    ) -> None:
        self.lock = threading.RLock()
        self.aside = threading.RLock()
        self.newcomers: list[Member] = []
        self._guard = threading.RLock()
        self.size = size
        self._id = hba_id
        self._start = start
        self._welcome = welcome
        self._mend = mend
        self._beside = beside
        self._members = list(found)
        self._deaths = self._misses = 0
        self._due: float | None = None
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._keeper = VitalThread(self._keep, f"roster{hba_id}")

    @property
    def members(self) -> list[Member]:
        """Those that are there, the eldest first; one may have died just now."""
        return list(self._members)

    def watch(self) -> None:
        """Begin to watch.

        Raises:
            OSError: There is no room for another thread.
        """
        start(self._keeper)

    def fill(self) -> None:
        """Bury the dead, and have as many as there are to be.

        Raises:
            UsageError, HostError: One cannot be started; those that could stay.
        """
        with self.lock, self.aside:
            self.bury()
            while len(self._members) < self.size:
                self._welcome(self._begin())
            self._look_again()

    def _begin(self) -> Member:
        member = self._start(self._id)
        log.info("engine %d of HBA %d has begun", member.pid, self._id)
        self._members.append(member)
        return member

    def shrink(self, size: int) -> None:
        """End the youngest until there are no more than `size`.

        Raises:
            HostError: One does not end.
        """
        with self.lock:
            while len(self._members) > size:
                self._members[-1].end()
                self._members.pop()
            self.size = size
            self._look_again()

    def bury(self) -> None:
        """Let go of those that have died; they are replaced before long."""
        with self._guard:
            for member in [member for member in self._members if not member.alive]:
                log.warning("engine %d of HBA %d has ended", member.pid, self._id)
                self._members.remove(member)
                member.close()
                if time.time() - member.since > STEADY:
                    self._deaths = 0
                self._postpone(self._deaths)
                self._deaths += 1

    def try_again_later(self) -> None:
        """Have what did not go mended before long."""
        with self.lock:
            self._postpone(self._misses)
            self._misses += 1

    def close(self) -> None:
        """Watch no more, and let go of the engines: they go on."""
        self._closed = True
        self._look_again()
        if self._keeper.is_alive():
            self._keeper.join()
        for member in self._members:
            member.close()
        self._members.clear()
        os.close(self._wake)

    # The thread that watches.

    def _keep(self) -> None:
        repeat(self._take_turn, f"watching the engines of HBA {self._id}")

    def _take_turn(self) -> bool:
        """Wait for what there is to do, and do it; False if nobody is to be watched any more."""
        self._wait()
        if self._closed:
            return False
        if self.lock.acquire(timeout=BUSY):
            try:
                self._tend(time.monotonic())
            finally:
                self.lock.release()
        else:
            self._tend_beside()
        return not self._closed

    def _tend_beside(self) -> None:
        """Replace the dead while a change waits for an engine, perhaps for minutes."""
        with self.aside:
            if not self._beside(None):
                return
            self.bury()
            if self._due is None or self._due > time.monotonic():
                return
            self._due = None
            try:
                while len(self._members) < self.size:
                    member = self._begin()
                    self.newcomers.append(member)
                    self._beside(member)
                self._postpone(self._misses)  # for what could not be served
            except (VscsihbaError, OSError, MemoryError) as error:
                text = str(error) or type(error).__name__
                log.error("no engine for HBA %d: %s", self._id, text)  # noqa: TRY400 - it says all
                self._postpone(self._deaths)

    def _wait(self) -> None:
        """Wait for a death, for the time of another try, or for news."""
        with selectors.DefaultSelector() as selector:
            with self._guard:
                selector.register(self._wake, selectors.EVENT_READ)
                for member in self._members:
                    selector.register(member, selectors.EVENT_READ)
                due = self._due
            ready = selector.select(None if due is None else max(0.0, due - time.monotonic()))
            if any(key.fileobj == self._wake for key, _ in ready):
                os.eventfd_read(self._wake)

    def _tend(self, now: float) -> None:
        """Note deaths, and do what is due."""
        self.bury()
        if self._due is not None and self._due <= now:
            self._due = None
            try:
                self.fill()
                mended = self._mend()
            except (VscsihbaError, OSError, MemoryError) as error:
                text = str(error) or type(error).__name__
                log.error("no engine for HBA %d: %s", self._id, text)  # noqa: TRY400 - it says all
                mended = False
            if mended:
                self._misses = 0
            else:
                self.try_again_later()

    def _postpone(self, times: int) -> None:
        """Have the next try after a pause that grows with the times before, unless another is due sooner."""
        due = time.monotonic() + PAUSES[min(times, len(PAUSES) - 1)]
        self._due = due if self._due is None else min(self._due, due)
        self._look_again()

    def _look_again(self) -> None:
        os.eventfd_write(self._wake, 1)
