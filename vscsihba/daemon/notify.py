"""Words to a service manager: ready, alive, what is going on (sd_notify(3)). Without one, nothing happens."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Tells the manager that started this process how it is.

    Args:
        environment: Where it says how it wants to be told.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if meant else 0.0

    @property
    def interval(self) -> float | None:
        """Seconds between two signs of life, half of what is asked for; None if none is."""
        return self._watchdog / 2 or None

    def ready(self, status: str) -> None:
        """Say that requests are answered from now on."""
        self._say(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Say that this process lives, and what it does."""
        self._say(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Say that this process ends."""
        self._say("STOPPING=1")

    def _say(self, words: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            try:
                out.sendto(words.encode(), address)
            except OSError:  # the manager has gone: there is nobody to tell
                return
