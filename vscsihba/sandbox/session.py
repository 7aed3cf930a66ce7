"""One run on the caller's side: forwards input, output and signals until the command has ended.

Runs in the caller's thread; signals are forwarded only from the main thread. Knows the protocol of `frames`,
and the descriptors of User-Mode Linux.
"""

import contextlib
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vscsihba.errors import SandboxError
from vscsihba.sandbox import frames, terminal
from vscsihba.sandbox.plan import Plan
from vscsihba.sandbox.uml import UmlProcess

TIMED_OUT: Final = 124
"""Exit code of a run whose time limit was reached, as for timeout(1)."""
BOOT_LIMIT: Final = 300.0
"""Seconds until the command must have started; a busy machine is slow."""
END_LIMIT: Final = 10.0
"""Seconds for the command to end after SIGTERM or SIGHUP."""
_CHUNK: Final = 1 << 16
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_LAST_LINES: Final = 200


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run.

    Attributes:
        exit_code: Exit code of the command; 128 + N after signal N; 124 after the time limit.
        kernel: Release of the kernel.
        boot_seconds: Time from the start to the command.
        seconds: Time from the start to the end.
        timed_out: Whether the time limit was reached.
        diagnosis: After the time limit, if the plan asks for it: state of the kernel, and what it has said.
    """

    exit_code: int
    kernel: str
    boot_seconds: float
    seconds: float
    timed_out: bool = False
    diagnosis: str = ""


class NotStartedError(SandboxError):
    """The command was not started; `exit_code` is that of a shell in this case."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def run_plan(plan: Plan, on_ready: Callable[[], None] = lambda: None) -> Report:
    """Run a command in the sandbox, with this process's standard input, output and error.

    Args:
        plan: The run.
        on_ready: Called when the command is about to start.

    Raises:
        SandboxError: This machine cannot run the sandbox, or the command was not started.
    """
    started = time.monotonic()
    interactive = terminal.is_interactive()
    with UmlProcess(plan, terminal.size() if interactive else None) as uml:
        session = _Session(plan, uml, started, on_ready)
        with session.signals(), terminal.raw() if interactive else contextlib.nullcontext():
            code = session.run()
    return Report(
        exit_code=code,
        kernel=uml.kernel.release,
        boot_seconds=round(session.ready_at - started, 3) if session.ready_at else 0.0,
        seconds=round(time.monotonic() - started, 3),
        timed_out=session.timed_out,
        diagnosis=session.diagnosis,
    )


class _Session:
    """The state of a run."""

    def __init__(self, plan: Plan, uml: UmlProcess, started: float, on_ready: Callable[[], None]) -> None:
        self._plan, self._uml, self._on_ready = plan, uml, on_ready
        self._boot_deadline = started + BOOT_LIMIT
        self._deadline = None if plan.timeout is None else started + plan.timeout
        self.ready_at: float | None = None
        self.timed_out = False
        self.diagnosis = ""
        self._credit = 0
        self._code: int | None = None
        self._console: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._decoder = frames.Decoder()
        self._selector = selectors.PollSelector()
        self._stopping: int | None = None
        self._lost = False

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Record signals for the command instead of handling them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        numbers = (*_PASSED_ON, signal.SIGWINCH)
        # A signal that the caller ignores, as after nohup, stays ignored.
        noted = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, _note) for number in noted}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._take_signals(os.read(reader, 64)))
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def run(self) -> int:
        """Forward everything until the command has ended, and return its exit code."""
        line, console = self._uml.line, self._uml.console
        self._selector.register(line, selectors.EVENT_READ, self._from_agent)
        self._selector.register(console, selectors.EVENT_READ, self._from_kernel)
        # A killed kernel can leave processes that hold the line open; the janitor ends last.
        janitor = os.pidfd_open(self._uml.janitor.pid)
        try:
            self._selector.register(janitor, selectors.EVENT_READ, self._janitor_ended)
            while self._code is None:
                events = self._selector.select(self._time_left())
                for key, _mask in events:
                    key.data()
                if self._code is None and not events and self._time_left() == 0:
                    self._code = self._time_is_over()
        finally:
            os.close(janitor)
        return self._code

    # Time

    def _next_deadline(self) -> float | None:
        limits = [self._deadline, self._boot_deadline if self.ready_at is None else None]
        return min((limit for limit in limits if limit is not None), default=None)

    def _time_left(self) -> float | None:
        deadline = self._next_deadline()
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def _time_is_over(self) -> int:
        if self._stopping is not None:
            return 128 + self._stopping
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.timed_out = True
            if self._plan.diagnose:
                self.diagnosis = self._uml.diagnose(line.decode(errors="replace") for line in self._console)
            return TIMED_OUT
        raise SandboxError(
            f"the command was not started within {BOOT_LIMIT:.0f} s",
            cure="see what the kernel says: --verbose",
        )

    # From the sandbox

    def _from_agent(self) -> None:
        try:
            data = self._uml.line.recv(_CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            raise self._ended()
        for kind, payload in self._decoder.feed(data):
            self._take(kind, payload)

    def _janitor_ended(self) -> None:
        """Handle the last frames of the kernel; raise if there is no exit code among them."""
        os.set_blocking(self._uml.line.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while self._code is None:
                self._from_agent()
        if self._code is None:
            raise self._ended()

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == frames.OUTPUT:
            _write_all(1, payload)
        elif kind == frames.ERROR:
            _write_all(2, payload)
        elif kind == frames.WANT:
            self._credit += frames.NUMBER.unpack(payload)[0]
            self._watch_input()
        elif kind == frames.READY:
            self.ready_at = time.monotonic()
            self._on_ready()
        elif kind == frames.EXIT:
            self._code = payload[0]
        elif kind == frames.FAILED:
            raise NotStartedError(payload[1:].decode(errors="replace"), payload[0])

    def _from_kernel(self) -> None:
        data = os.read(self._uml.console, _CHUNK)
        if not data:
            self._selector.unregister(self._uml.console)
            return
        self._console.extend(data.splitlines())
        if self._plan.verbose:
            _write_all(2, data.replace(b"\n", b"\r\n") if terminal.is_interactive() else data)

    def _ended(self) -> SandboxError:
        """Return the error for a kernel that ended too early, with the reason if it is known."""
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(self._uml.console, False)
            while data := os.read(self._uml.console, _CHUNK):
                self._console.extend(data.splitlines())
        return _explain(
            [line.decode(errors="replace") for line in self._console], started=self.ready_at is not None
        )

    # To the sandbox

    def _send(self, kind: int, payload: bytes = b"") -> None:
        with contextlib.suppress(ConnectionError):  # the end of the stream from there is noticed
            self._uml.line.sendall(frames.frame(kind, payload))

    def _watch_input(self) -> None:
        if self._lost or self._credit <= frames.HEADER.size or 0 in self._selector.get_map():
            return
        if terminal.is_in_background():
            return
        try:
            os.fstat(0)
        except OSError:
            self._end_input()
            return
        self._selector.register(0, selectors.EVENT_READ, self._from_input)

    def _from_input(self) -> None:
        try:
            data = os.read(0, self._credit - frames.HEADER.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(0)
            self._end_input()
            return
        self._credit -= len(data) + frames.HEADER.size
        if self._credit <= frames.HEADER.size:
            self._selector.unregister(0)
        self._send(frames.INPUT, data)

    def _end_input(self) -> None:
        self._lost = True
        self._send(frames.INPUT_END)

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._send(frames.RESIZE, frames.WINDOW.pack(*terminal.size()))
            elif self.ready_at is None or self._stopping is not None:
                self._code = 128 + number
            elif number in _PASSED_ON:
                self._send(frames.SIGNAL, bytes([number]))
                if number in _ENDING:
                    self._stopping = number
                    limit = time.monotonic() + END_LIMIT
                    self._deadline = limit if self._deadline is None else min(limit, self._deadline)


def _note(_number: int, _frame: object) -> None:
    """Do nothing: the signal is read from the wake-up descriptor."""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _explain(lines: list[str], *, started: bool) -> SandboxError:
    """Return the error for a kernel that ended by itself; `lines` are its last messages."""
    text = "\n".join(lines)
    for line in reversed(lines):
        if "init.sh:" in line:
            reason = line.partition("init.sh:")[2].strip()
            return SandboxError(f"the sandbox could not be prepared: {reason}", cure="see --verbose")
    if "ptrace" in lines[-1] if lines else False:
        return SandboxError(
            f"this machine does not let a process trace another: {lines[-1].strip()}",
            cure="allow ptrace (in a container: --cap-add SYS_PTRACE, or a seccomp profile that allows it)",
        )
    if "Out of memory" in text or "oom-kill" in text:
        return SandboxError("the sandbox ran out of memory", cure="give it more with --memory")
    when = "while the command ran" if started else "before the command was started"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")
    return SandboxError(f"the kernel of the sandbox ended {when}: {last}", cure="see --verbose")
