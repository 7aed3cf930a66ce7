"""The process between launcher and kernel: starts the kernel, and cleans up after it.

Started as a plain script: ``janitor.py FOLDER[:FOLDER...] [--preload=FILE] COMMAND ...``. Its standard
input is a pipe that the launcher holds: when the launcher ends for any reason, the pipe ends, and the janitor
ends the kernel's processes and removes the folders. If the janitor itself is killed, the kernel gets SIGKILL
(PR_SET_PDEATHSIG), and the launcher does the rest with the same functions.

User-Mode Linux traces one process of its own for each process of the guest. If the kernel's main process
dies first, these continue without a tracer, and their system calls reach this machine. ptrace.c prevents that
if there is a C compiler; in any case they are ended before the kernel, or at once when it has died. They are
found by their session: the janitor's at first, and the kernel's after the kernel has started its own.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PID_FILE = "kernel.pid"
"""File in the first folder that has the kernel's pid."""
LIMIT = 10.0
"""Seconds to wait for processes to end."""


def pids_of(sessions: Collection[int]) -> Iterator[int]:
    """Yield the pids of sessions, without this process and without zombies."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - a bare script that starts in 15 ms
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - likewise
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in sessions and fields[0] not in (b"Z", b"X"):
            yield int(name)


def end_processes(janitor: int, kernel: int | None) -> None:
    """End every process of a run but this one: the guest's processes first, then the kernel's main process.

    Args:
        janitor: Pid of the janitor.
        kernel: Pid of the kernel; None if it was not started.
    """
    sessions = {janitor} if kernel is None else {janitor, kernel}
    if kernel is not None and kernel in set(pids_of(sessions)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(kernel, signal.SIGSTOP)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        alive = list(pids_of(sessions))
        guest = [pid for pid in alive if pid != kernel]
        for pid in guest or alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return
        time.sleep(0.002)


def kernel_pid(folder: str) -> int | None:
    """Return the pid of the kernel of a run, None if it was not started."""
    try:
        with open(os.path.join(folder, PID_FILE)) as file:  # noqa: PTH118, PTH123 - likewise
            return int(file.read())
    except (OSError, ValueError):
        return None


def remove(folders: list[str]) -> None:
    """Remove the folders of a run with their contents."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def start(command: list[str], environ: dict[str, str], pid_file: str) -> int:
    """Start the kernel, which dies with this process, and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        with open(pid_file, "w") as file:  # noqa: PTH123 - likewise
            file.write(str(os.getpid()))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execve(command[0], command, environ)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(125)


def main() -> int:
    """Run the kernel until it or the launcher ends, then clean up."""
    folders, command, environ = sys.argv[1].split(":"), sys.argv[2:], dict(os.environ)
    if command[0].startswith("--preload="):
        environ["LD_PRELOAD"] = command.pop(0).removeprefix("--preload=")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # Orphans of the kernel become children of this process, which reaps them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    kernel = start(command, environ, os.path.join(folders[0], PID_FILE))  # noqa: PTH118 - likewise
    status = None
    while status is None:
        ready, _, _ = select.select([0, reader], [], [])
        if 0 in ready and not os.read(0, 1):
            break
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 64)
        pid, ended = os.waitpid(kernel, os.WNOHANG)
        if pid:
            status = ended
    end_processes(os.getpid(), kernel)
    remove(folders)
    return 0 if status is None else abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
