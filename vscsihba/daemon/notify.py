"""Messages to a service manager: ready, alive, status (sd_notify(3)). Without a manager they are not sent."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends messages to the manager that has started this process.

    Args:
        environment: The variables that the manager has set.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        for_this_process = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if for_this_process else 0.0

    @property
    def interval(self) -> float | None:
        """Seconds between two `alive` messages, half of the watchdog's time; None without a watchdog."""
        return self._watchdog / 2 or None

    def ready(self, status: str) -> None:
        """Report that the service answers requests."""
        self._say(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Report that this process is alive, and its status."""
        self._say(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Report that this process ends."""
        self._say("STOPPING=1")

    def _say(self, words: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            try:
                out.sendto(words.encode(), address)
            except OSError:  # the manager has ended
                return
