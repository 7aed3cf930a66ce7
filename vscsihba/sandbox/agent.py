"""Pid 1 of the sandbox: runs the command, and forwards its input and output.

A plain script, started by guest/init.sh with the run's folder as its argument; ``run.json`` in that folder
has the command. Exchanges `frames` with the launcher over the first serial line. Finally it powers the kernel
off. Knows nothing of disks.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import pty
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vscsihba.sandbox import frames
else:  # beside this script, which does not import the package
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import frames

LINE = "/dev/ttyS0"
CHUNK = 1 << 15
DRAIN = 2.0
"""Seconds to wait for more output after the command has ended, if another process holds the output open."""
SYNC_LIMIT = 20.0
"""Seconds for writing back dirty data of file systems; a disk may be stuck."""
NOT_STARTED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
MS_NOSUID, MS_NODEV = 2, 4
RB_POWER_OFF = 0x4321FEDC
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


class NotStartedError(Exception):
    """The command was not started; the message has the reason."""

    def __init__(self, message: str, code: int = NOT_STARTED) -> None:
        super().__init__(message)
        self.code = code


class Line:
    """The serial line to the launcher."""

    def __init__(self) -> None:
        self.fd = os.open(LINE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        tty.setraw(self.fd)
        self._decoder = frames.Decoder()

    def send(self, kind: int, data: bytes = b"") -> None:
        """Send a frame, or several for long data."""
        view = memoryview(frames.frames(kind, data) if data else frames.frame(kind))
        while view:
            view = view[os.write(self.fd, view) :]

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames received."""
        yield from self._decoder.feed(os.read(self.fd, CHUNK))


def mount_writable(folder: str) -> None:
    """Mount a folder of this machine over itself, so that writes reach this machine."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    where, kind = os.fsencode(folder), b"hostfs"
    if libc.mount(b"none", where, kind, MS_NOSUID | MS_NODEV, where) != 0:
        raise NotStartedError(f"{folder} cannot be made writable: {os.strerror(ctypes.get_errno())}")


def loopback_up() -> None:
    """Switch the network interface `lo` on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack_from("16sh", request)[1] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags))


def prepare(run: dict[str, Any]) -> None:
    """Prepare the command: writable folders, the network, the caller's preparation steps."""
    socket.sethostname("sandbox")
    loopback_up()
    for folder in run["writable"]:
        mount_writable(folder)
    for step in run["steps"]:
        _foreground(step, run) if step["ready"] is None else _background(step, run)


def _background(step: dict[str, Any], run: dict[str, Any]) -> None:
    """Start a background program with its output in a log file, and wait until it is ready."""
    log = pathlib.Path(step["log"])
    with log.open("ab") as file:
        process = subprocess.Popen(
            step["command"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/", env=run["environ"],
            start_new_session=True,
        )  # fmt: skip
    while not os.path.exists(step["ready"]):  # noqa: PTH110 - called often
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise NotStartedError(_failed(step, lines[-1] if lines else str(process.returncode)))
        time.sleep(0.01)


def _foreground(step: dict[str, Any], run: dict[str, Any]) -> None:
    """Run a program to its end; an error message contains its error output."""
    done = subprocess.run(
        step["command"], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", check=False,
        env=run["environ"],
    )  # fmt: skip
    if done.returncode != 0:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise NotStartedError(_failed(step, reason))


def _failed(step: dict[str, Any], reason: str) -> str:
    """Return an error message with the name of a program once: its own message may begin with it."""
    return f"{step['name']}: {reason.removeprefix(step['name'].split()[0] + ': ')}"


class Child:
    """The command as a process, with the descriptors that carry its input and output.

    Attributes:
        outputs: Frame types by descriptor; a descriptor is removed at its end of file.
        input: Descriptor of its input, None after the input has ended.
    """

    def __init__(self, run: dict[str, Any]) -> None:
        self._terminal = run["terminal"]
        self.outputs: dict[int, int] = {}
        self.input: int | None
        (program, *arguments), environ = run["command"], run["environ"]
        # execvp() would report "permission denied" instead of "not found" for an unreadable folder in PATH.
        path = shutil.which(program, path=environ.get("PATH", os.defpath))
        command = [path or program, *arguments]
        if path is None and "/" not in program:
            raise NotStartedError(f"{program}: command not found", NOT_FOUND)
        try:
            os.chdir(run["cwd"])
        except OSError as error:
            raise NotStartedError(f"{run['cwd']}: {error.strerror}") from error
        starter = self._on_terminal if self._terminal else self._on_pipes
        try:
            self.process = starter(command, environ)
        except FileNotFoundError as error:
            raise NotStartedError(f"{program}: {error.strerror}", NOT_FOUND) from error
        except OSError as error:
            raise NotStartedError(f"{program}: {error.strerror}", NOT_EXECUTABLE) from error

    def _on_pipes(self, command: list[str], environ: dict[str, str]) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            command, env=environ, start_new_session=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None  # noqa: S101 - for the type checker
        assert process.stdout is not None  # noqa: S101 - likewise
        assert process.stderr is not None  # noqa: S101 - likewise
        self.outputs = {process.stdout.fileno(): frames.OUTPUT, process.stderr.fileno(): frames.ERROR}
        self.input = process.stdin.fileno()
        os.set_blocking(self.input, False)
        return process

    def _on_terminal(self, command: list[str], environ: dict[str, str]) -> "subprocess.Popen[bytes]":
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        self.input, self.outputs = os.dup(master), {master: frames.OUTPUT}
        self.resize(*self._terminal)

        def take_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            command, env=environ, start_new_session=True, stdin=slave, stdout=slave, stderr=slave,
            preexec_fn=take_terminal,  # noqa: PLW1509 - this process has no threads
        )  # fmt: skip
        os.close(slave)
        return process

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the command's terminal, if it has one."""
        if self._terminal and self.input is not None:
            fcntl.ioctl(self.input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_input(self) -> None:
        """End the command's input."""
        if self.input is not None and not self._terminal:
            self.process.stdin.close()  # type: ignore[union-attr]
        self.input = None


class Forwarder:
    """Forwards input, output and signals between the launcher and the command until the command has ended."""

    def __init__(self, line: Line, child: Child) -> None:
        self._line, self._child = line, child
        self._waiting = bytearray()
        self._owed = 0
        self._input_ends = False
        self._code: int | None = None
        self._selector = selectors.DefaultSelector()
        self._calls: dict[int, Callable[[bytes], None]] = {
            frames.INPUT: self._take_input,
            frames.INPUT_END: self._take_end,
            frames.SIGNAL: lambda data: child.signal(data[0]),
            frames.RESIZE: lambda data: child.resize(*frames.WINDOW.unpack(data)),
        }

    def run(self) -> int:
        """Return the command's exit code, 128 + N after signal N."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector.register(self._line.fd, selectors.EVENT_READ, self._from_launcher)
        self._selector.register(reader, selectors.EVENT_READ, lambda: os.read(reader, 64))
        for fd in self._child.outputs:
            self._selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self._from_command(fd))
        self._line.send(frames.WANT, frames.NUMBER.pack(frames.CREDIT))
        self._reap()
        while self._code is None:
            self._turn(None)
        while self._child.outputs and self._turn(DRAIN):
            pass
        return self._code

    def _turn(self, limit: float | None) -> bool:
        events = self._selector.select(limit)
        for key, _mask in events:
            key.data()
        self._reap()
        return bool(events)

    def _reap(self) -> None:
        """Reap the command and orphans, which are children of pid 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.process.pid:
                code = os.waitstatus_to_exitcode(status)
                self._child.process.returncode = code
                self._code = code if code >= 0 else 128 - code

    def _from_launcher(self) -> None:
        for kind, data in self._line.receive():
            self._calls[kind](data)

    def _from_command(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal's last process has ended
            data = b""
        if data:
            self._line.send(self._child.outputs[fd], data)
            return
        self._selector.unregister(fd)
        del self._child.outputs[fd]

    def _take_input(self, data: bytes) -> None:
        self._waiting += data
        self._owed += frames.HEADER.size
        self._feed()

    def _take_end(self, _data: bytes) -> None:
        self._input_ends = True
        self._feed()

    def _feed(self) -> None:
        """Write received input to the command, and request the same amount again."""
        fd = self._child.input
        while self._waiting and fd is not None:
            try:
                count = os.write(fd, self._waiting[:CHUNK])
            except BlockingIOError:
                self._watch_input(fd)
                return
            except OSError:  # EPIPE: the command has closed its input
                self._stop_input(fd)
                return
            del self._waiting[:count]
            self._line.send(frames.WANT, frames.NUMBER.pack(count + self._owed))
            self._owed = 0
        if fd is not None and not self._waiting:
            self._unwatch_input(fd)
            if self._input_ends:
                self._stop_input(fd)

    def _watch_input(self, fd: int) -> None:
        if fd not in self._selector.get_map():
            self._selector.register(fd, selectors.EVENT_WRITE, self._feed)

    def _unwatch_input(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def _stop_input(self, fd: int) -> None:
        self._unwatch_input(fd)
        self._waiting.clear()
        self._child.close_input()


def sync_and_unmount() -> None:
    """Sync file systems and unmount those on disks, within `SYNC_LIMIT` seconds."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            os.sync()
            for line in reversed(pathlib.Path("/proc/self/mounts").read_text().splitlines()):
                source, place = line.split()[:2]
                if source.startswith("/dev/"):
                    libc.umount2(place.encode().decode("unicode_escape").encode("latin-1"), 0)
            os.sync()
        os._exit(0)
    signal.alarm(int(SYNC_LIMIT))
    with contextlib.suppress(InterruptedError, ChildProcessError, TimeoutError):
        while os.waitpid(-1, 0)[0] != pid:
            pass
    signal.alarm(0)


def on_alarm(_number: int, _frame: object) -> None:
    """Interrupt a system call that waits."""
    raise TimeoutError


def main() -> None:
    """Run the command, send its exit code and power off."""
    signal.signal(signal.SIGALRM, on_alarm)
    line = Line()
    run = json.loads((pathlib.Path(sys.argv[1]) / "run.json").read_text())
    try:
        prepare(run)
        line.send(frames.READY)
        code = Forwarder(line, Child(run)).run()
    except NotStartedError as error:
        line.send(frames.FAILED, bytes([error.code]) + str(error).encode(errors="replace"))
    else:
        sync_and_unmount()
        line.send(frames.EXIT, bytes([code]))
    termios.tcdrain(line.fd)
    libc.reboot(RB_POWER_OFF)


if __name__ == "__main__":
    main()
