"""One run of virtme-run as a process: its output passed on as it comes, its time limit, its end.

Knows pipes, signals and the clock; not what is inside the machine.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from vagrant.runner.workdir import WorkDir

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHUNK = 65536
KILL_AFTER = 5.0
"""Seconds that a process has after SIGTERM, to put the terminal right."""
Sink = Callable[[int, bytes], None]
"""Takes a file descriptor number (1 or 2) and what the guest wrote to it."""


class StoppedError(Exception):
    """A signal asked this run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class TimeLimitError(Exception):
    """The run took longer than it may."""


def write_all(fd: int, data: bytes) -> None:
    """Write to a descriptor of this process, whole; the default sink."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def discard(_fd: int, _data: bytes) -> None:
    """Take the output and forget it."""


@contextlib.contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into StoppedError; more of them do not disturb the end."""
    stopped = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise StoppedError(number)

    previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def feed(fd: int) -> None:
    """Copy our standard input into `fd` until it ends; for a daemon thread, a read cannot be cancelled."""
    with contextlib.suppress(OSError):
        while data := os.read(sys.stdin.fileno(), CHUNK):
            write_all(fd, data)
    os.close(fd)


def pump(outputs: Mapping[int, int], deadline: float | None, sink: Sink) -> None:
    """Pass on what comes out of the pipes (pipe: descriptor) until all are closed or the time is over."""
    with selectors.DefaultSelector() as selector:
        for pipe, number in outputs.items():
            selector.register(pipe, selectors.EVENT_READ, number)
        while selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeLimitError
            for key, _ in selector.select(left):
                if data := os.read(key.fd, CHUNK):
                    sink(key.data, data)
                else:
                    selector.unregister(key.fd)


def end(process: subprocess.Popen[bytes], pidfile: Path) -> None:
    """End QEMU, then virtme-run, which waits for it; the hard way if need be (QEMU dies with its parent)."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(pidfile.read_text()), signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER)
    process.terminate()
    try:
        process.wait(KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environ(work: WorkDir) -> dict[str, str]:
    """Return virtme-run's environment: its own temporary files go into this run's folder."""
    return {**os.environ, "TMPDIR": str(work.path)}


def run_streaming(command: Sequence[str], work: WorkDir, limit: float | None, sink: Sink = write_all) -> None:
    """Run a command until it ends or its limit in seconds is over, in a session of its own.

    Standard input is passed on unless it is a terminal: Ctrl-C shall stop us, not be typed into the guest.
    """
    deadline = None if limit is None else time.monotonic() + limit
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if sys.stdin.isatty() else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ(work),
        pass_fds=[work.lifeline],
        start_new_session=True,
    ) as process:
        pipes = ((1, process.stdout), (2, process.stderr))
        outputs = {pipe.fileno(): number for number, pipe in pipes if pipe is not None}
        if process.stdin is not None:
            threading.Thread(target=feed, args=[os.dup(process.stdin.fileno())], daemon=True).start()
            process.stdin.close()
        try:
            pump(outputs, deadline, sink)
        except BaseException:
            end(process, work.pidfile)
            raise


def run_interactive(command: Sequence[str], work: WorkDir, limit: float | None) -> None:
    """Run a command on our terminal, which it may set up as it likes and puts right itself."""
    with subprocess.Popen(command, env=environ(work), pass_fds=[work.lifeline]) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired as error:
            end(process, work.pidfile)
            raise TimeLimitError from error
        except BaseException:
            end(process, work.pidfile)
            raise
