"""A program in a terminal of its own: keys go in, and what has been shown can be waited for."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

LIMIT = 60.0
"""Seconds for anything that is waited for: machines may be slow."""

_CONTROL = re.compile(r"\x1b\[[0-9;?=>]*[A-Za-z]|\x1b[=>()][A-Z0-9]?|\x1b\][^\x07]*\x07|[\x07\x0f]|\x1b.")


class Terminal:
    """A program that believes to be used by a person, while the context is entered.

    Args:
        command: The program and its words.
        environment: Its variables; TERM is set here.
        columns: Width.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], columns: int = 100) -> None:
        self._command = command
        self._environment = {**environment, "TERM": "xterm"}
        self._columns = columns
        self._shown = b""
        self._read = 0

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self._columns, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *self._command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._environment,
        )
        os.close(slave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._master)  # hangs it up
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def text(self) -> str:
        """All that it has shown, without colours and movements of the cursor."""
        return _CONTROL.sub("", self._shown.decode(errors="replace")).replace("\r", "")

    @property
    def coloured(self) -> bool:
        """It has shown colours."""
        return b"\x1b[3" in self._shown

    def send(self, keys: str) -> None:
        """Press keys; `wait_for` then looks only at later output."""
        self._pull(0)
        self._read = len(self.text)
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Return the output since the last keys, once the pattern is in it."""
        deadline = time.monotonic() + LIMIT
        while not re.search(pattern, self.text[self._read :], re.MULTILINE):
            if time.monotonic() > deadline or not self._pull(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} has not been shown:\n{self.text}")
        return self.text[self._read :]

    def end(self) -> int:
        """Return the exit code, when it has ended by itself."""
        while self._pull(LIMIT):
            pass
        return self.process.wait(LIMIT)

    def _pull(self, limit: float) -> bool:
        """Read output; False if no more will come, or none came within the limit."""
        if not select.select([self._master], [], [], max(limit, 0))[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: the last one who could write has gone
            found = os.read(self._master, 65536)
            self._shown += found
            return bool(found)
        return False
