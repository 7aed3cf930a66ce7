"""One engine process as the service sees it: started or adopted, controlled, watched, ended.

A pidfd watches the process, whether this service has started it or an earlier one.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from vscsihba.control import NotListeningError, call
from vscsihba.control.wire import Failure
from vscsihba.engine.owner import control_sockets
from vscsihba.engine.owning.locks import RUN, SERVICE, run_directory
from vscsihba.errors import HostError, VscsihbaError

log = logging.getLogger(__name__)

_START: Final = 300.0
"""Seconds for a new process to be ready: on a busy machine, Python itself starts slowly."""

_QUICK: Final = 30.0
"""Seconds for an engine to report its status."""

_LAST_WORD: Final = 1.0
"""Seconds for a process to end after it has closed its connection."""

_LONG: Final = 300.0
"""Seconds for a change: the kernel waits for storage."""


class Engine:
    """A running engine process; `close` releases it and leaves it running.

    Args:
        hba_id: The HBA that it serves.
        pid: Its process id.
        since: Its start, in seconds since 1970.
        process: Its handle if this process has started it.

    Raises:
        HostError: There is no such process.
    """

    def __init__(
        self, hba_id: int, pid: int, since: float, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.hba_id = hba_id
        self.pid = pid
        self.since = since
        self._process = process
        try:
            self._fd = os.pidfd_open(pid)
        except OSError as error:
            raise HostError(f"engine {pid}: {error.strerror}") from error

    @classmethod
    def start(cls, hba_id: int) -> Self:
        """Start a process that serves an HBA without LUNs, and wait until it is ready.

        Raises:
            UsageError, HostError: The error that the process reports.
        """
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "vscsihba.engine", str(hba_id)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:  # no process, memory or descriptor is free
            raise HostError(f"an engine cannot be started: {error.strerror or error}") from error
        try:
            _await_ready(process)
            return cls(hba_id, process.pid, time.time(), process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()

    @classmethod
    def find(cls, hba_id: int, run: Path = RUN) -> list[Self]:
        """Return the running engines of an HBA that a service has started, the oldest first."""
        engines = []
        for path in control_sockets(hba_id, run):
            try:
                status: Any = call(path, "status", timeout=_QUICK)
                if status["by"] == SERVICE:
                    engines.append(cls(hba_id, status["pid"], status["since"]))
            except NotListeningError:  # it was killed
                path.unlink(missing_ok=True)
            except VscsihbaError as error:
                log.warning("no engine to adopt behind %s: %s", path.name, error)
        return sorted(engines, key=lambda engine: engine.since)

    def fileno(self) -> int:
        """Return a descriptor that is readable once the process has ended (pidfd_open(2))."""
        return self._fd

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._fd >= 0 and not _readable(self._fd, 0)

    def status(self) -> dict[str, Any]:
        """Return the engine's status; see `vscsihba.engine.target.Target.status`.

        Raises:
            HostError: It does not answer.
        """
        answer: Any = call(self._socket, "status", timeout=_QUICK)
        return dict(answer)

    def ask(self, verb: str, arguments: Mapping[str, object]) -> Any:
        """Send a request and return the answer; see `vscsihba.engine.verbs`.

        Raises:
            UsageError, HostError: The engine's error, or it does not answer.
        """
        return call(self._socket, verb, arguments, timeout=_LONG)

    def end(self) -> None:
        """End the process and wait for that; other engines take its LUNs over, or they are removed.

        Raises:
            HostError: A disk that would be removed is in use, or the process does not end.
        """
        if self.alive:
            try:
                call(self._socket, "end", timeout=_QUICK)
            except HostError:  # it may have ended before it could answer
                if not _readable(self._fd, _LAST_WORD):
                    raise
            if not _readable(self._fd, _LONG):
                raise HostError(
                    f"engine {self.pid} of HBA {self.hba_id} does not end", cure="is storage stuck?"
                )
        self.close()

    def kill(self) -> None:
        """Kill the process; another engine takes its LUNs over."""
        try:
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Release the process; reap it if it was started here and has ended."""
        ended, fd = not self.alive, self._fd
        self._fd = -1
        os.close(fd)
        if self._process is not None:
            self._process.poll()
        if ended:
            self._socket.unlink(missing_ok=True)

    @property
    def _socket(self) -> Path:
        return run_directory(self.hba_id) / f"engine-{self.pid}.control"


def _readable(fd: int, seconds: float) -> bool:
    """Return whether a descriptor becomes readable in time (poll(2), which takes any descriptor number)."""
    polled = select.poll()
    polled.register(fd, select.POLLIN)
    return bool(polled.poll(seconds * 1000))


def _await_ready(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the line in which a new process reports its start.

    Raises:
        UsageError, HostError: The error in that line, or there is no line.
    """
    assert process.stdout is not None  # noqa: S101  # for the type checker
    if not _readable(process.stdout.fileno(), _START):
        raise HostError(f"a new engine is not ready within {_START:g} s", cure="is the machine overloaded?")
    line = process.stdout.readline()
    if not line:
        raise HostError("a new engine ended before it was ready", cure="the service's log says why")
    try:
        report = json.loads(line)
        ready = report.pop("ready")
        failure = None if ready else msgspec.convert(report, Failure)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise HostError(f"a new engine answered {line[:80]!r} instead of its start result") from error
    if failure is not None:
        raise failure.to_error()
