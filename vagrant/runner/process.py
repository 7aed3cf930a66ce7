"""One run of virtme-run as a process: its output, its time limit, its end.

Knows pipes, signals and the clock; nothing of the guest.
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
"""Seconds for a process to restore the terminal after SIGTERM."""
Sink = Callable[[int, bytes], None]
"""Takes a file descriptor number (1 or 2) and the bytes that the guest wrote to it."""


class StoppedError(Exception):
    """A signal ended this run."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class TimeLimitError(Exception):
    """The run reached its time limit."""


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes to a descriptor of this process; the default sink."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def discard(_fd: int, _data: bytes) -> None:
    """Ignore output."""


@contextlib.contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into StoppedError, and ignore later ones."""
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
    """Copy standard input into `fd` until it ends; run it on a daemon thread."""
    with contextlib.suppress(OSError):
        while data := os.read(sys.stdin.fileno(), CHUNK):
            write_all(fd, data)
    os.close(fd)


def pump(outputs: Mapping[int, int], deadline: float | None, sink: Sink) -> None:
    """Forward the output of pipes (pipe: descriptor) until all are closed or the deadline is reached."""
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
    """End QEMU, then virtme-run, which waits for it; kill virtme-run if it does not end."""
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
    """Return virtme-run's environment, with this run's folder for its temporary files."""
    return {**os.environ, "TMPDIR": str(work.path)}


def run_streaming(command: Sequence[str], work: WorkDir, limit: float | None, sink: Sink = write_all) -> None:
    """Run a command in a session of its own until it ends or its limit in seconds is reached.

    Standard input is forwarded unless it is a terminal: Ctrl-C stops this program, not the guest's.
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
    """Run a command on the terminal of this process; it sets the mode of the terminal and restores it."""
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
