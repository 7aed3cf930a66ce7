"""The supervisor of a disk: keeps one daemon alive, and replaces it when it dies.

A daemon is started by the supervisor's thread, which outlives it. That thread also waits for its
end: the kernel kills a daemon whose starting thread has ended.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable

from vscsihba.errors import VscsihbaError
from vscsihba.handlers.qemu.daemon import Daemon
from vscsihba.threads import VitalThread, start

log = logging.getLogger(__name__)

_PAUSES = (0.0, 0.1, 0.2, 0.5, 1.0)
"""Seconds before the first tries to start another daemon; the last one before all later tries."""
_LONG_LIFE = 10.0
"""Seconds that a daemon must live so that its death counts as the first one."""
_GRACE = 10.0
"""Seconds in which a daemon has to end; images of some formats are written back then."""

Start = Callable[[], Daemon]
"""Starts a daemon that has the image open, with every write that a dead one may have lost."""


class Supervisor:
    """The daemon of one disk, from `open` to `close`.

    Args:
        name: The image, for messages.
        start: Starts a daemon; runs on the supervisor's thread.
        died: Called after the death of a daemon, before the next one is started.
    """

    def __init__(self, name: str, start: Start, died: Callable[[], None]) -> None:
        self._name = name
        self._start = start
        self._died = died
        self._changing = threading.Lock()
        self._daemon: Daemon | None = None
        self._first: list[Exception] = []
        self._begun = threading.Event()
        self._closing = threading.Event()
        self._properly = False
        self._thread = VitalThread(self._run, f"qemu-daemon {name}")

    def open(self) -> None:
        """Start the first daemon.

        Raises:
            UsageError, HostError, OSError: It cannot be started.
        """
        start(self._thread)
        self._begun.wait()
        if self._first:
            self._thread.join()
            raise self._first[0]

    def close(self) -> bool:
        """End the daemon, if need be by force; return whether it has closed the image itself."""
        self._closing.set()
        daemon = self._daemon
        if daemon is not None:
            daemon.ask_to_end()
        self._thread.join(_GRACE)
        if self._thread.is_alive():
            log.warning("%s: the daemon does not end, and is killed", self._name)
            self.kill()
            self._thread.join(_GRACE)  # it may hang in the storage below for ever
        return self._properly

    def kill(self) -> None:
        """Kill the daemon, so that it carries out no request that is under way; another one is started.

        This never waits: requests time out on the thread that serves all disks.
        """
        daemon = self._daemon
        if daemon is not None:
            daemon.kill()

    @property
    def pid(self) -> int | None:
        """The process of the daemon, None while there is none."""
        daemon = self._daemon
        return None if daemon is None else daemon.pid

    def resize(self, size: int) -> None:
        """Change the capacity of the image; clients have to connect anew.

        Raises:
            QmpError: The format cannot, or there is no room.
            HostError: The daemon has ended.
            OSError: There is no daemon at the moment.
        """
        with self._changing:
            if self._daemon is None:
                raise OSError(errno.EAGAIN, f"{self._name}: the daemon is being started")
            self._daemon.resize(size)

    def _run(self) -> None:
        tries = 0
        while not self._closing.wait(_PAUSES[min(tries, len(_PAUSES) - 1)]):
            tries += 1
            daemon = self._try_to_start()
            if daemon is None:
                if not self._begun.is_set():
                    break
                continue
            began = time.monotonic()
            self._take(daemon)
            self._begun.set()
            properly = daemon.wait()
            self._take(None)
            if self._closing.is_set():
                self._properly = properly
            else:
                log.warning(
                    "%s: its daemon has died (%s); another one is started", self._name, daemon.last_words()
                )
                self._died()
            daemon.release()
            if time.monotonic() - began > _LONG_LIFE:
                tries = 0
        self._begun.set()

    def _try_to_start(self) -> Daemon | None:
        """Start a daemon; return None if that failed, which the opener or the log is told."""
        try:
            return self._start()
        except (VscsihbaError, OSError) as error:
            if self._begun.is_set():
                log.error("%s: no daemon can be started: %s", self._name, error)  # noqa: TRY400
            else:
                self._first.append(error)
            return None

    def _take(self, daemon: Daemon | None) -> None:
        with self._changing:
            self._daemon = daemon
        if daemon is not None and self._closing.is_set():  # `close` may have found none to ask
            daemon.ask_to_end()
