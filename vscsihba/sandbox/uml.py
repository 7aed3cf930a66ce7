"""User-Mode Linux as a process: its command line, its files, its janitor, and its end.

Knows the descriptors of the process, not the protocols on them.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vscsihba.errors import SandboxError
from vscsihba.sandbox import folders, janitor, mconsole, ptrace_library
from vscsihba.sandbox.kernels import Kernel, choose
from vscsihba.sandbox.plan import FOLDER, HIDDEN, Plan
from vscsihba.sandbox.programs import check_programs

HERE: Final = Path(__file__).resolve().parent
JANITOR_LIMIT: Final = 20.0
"""Seconds for the janitor to end processes and remove files."""


class UmlProcess:
    """A User-Mode Linux that runs while the context is entered.

    Args:
        plan: The run.
        terminal: Rows and columns of the command's terminal; None for pipes.

    Attributes:
        kernel: The chosen kernel.
        line: The socket that is the guest's first serial line.
        console: The pipe with the kernel's messages.
        janitor: The process that ends last.
    """

    def __init__(self, plan: Plan, terminal: tuple[int, int] | None) -> None:
        self.kernel = choose(plan.kernel)
        _check_visible(HERE, "the package vscsihba")
        self._plan, self._terminal = plan, terminal
        check_programs()
        self._preload = ptrace_library.library()

    def __enter__(self) -> Self:
        folder = folders.make_folder(self._plan.memory)
        self._folders = [folder]
        try:
            scratch = self._make_scratch(folder) if self._plan.scratch else None
            self._write_files(folder, scratch=scratch is not None)
            self._start(folder, scratch)
        except BaseException:
            janitor.remove([str(folder) for folder in self._folders])
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kernel = janitor.kernel_pid(str(self._folders[0]))
        os.close(self._lifeline)
        try:
            self.janitor.wait(JANITOR_LIMIT)
        except subprocess.TimeoutExpired:
            self.janitor.kill()
            self.janitor.wait()
        # The janitor has done this already, unless it was killed.
        janitor.end_processes(self.janitor.pid, kernel)
        janitor.remove([str(folder) for folder in self._folders])
        self.line.close()
        os.close(self.console)

    def diagnose(self, messages: Iterable[str]) -> str:
        """Return lines about a kernel whose command does not end: its load, and the processes that wait.

        Args:
            messages: The kernel's last messages.
        """
        folder = self._folders[0]
        pid = janitor.kernel_pid(str(folder))
        before = _processor_seconds(pid)
        blocked = mconsole.ask(folder / "uml/mconsole", "sysrq w")
        time.sleep(1.0)
        used = _processor_seconds(pid) - before
        return "\n".join(
            [
                f"the kernel used {used:.2f} s of processor time within a second",
                "it does not answer requests" if blocked is None else f"processes that wait in it: {blocked}",
                "its last messages:",
                *messages,
            ]
        )

    def _make_scratch(self, folder: Path) -> Path:
        """Create a sparse image with an ext4."""
        place = folders.make_disk_folder(folder)
        self._folders.append(place)
        image = place / "scratch.img"
        with image.open("xb") as file:
            file.truncate(self._plan.scratch)
        made = subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image)],
            env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise SandboxError(
                f"no scratch file system: {made.stderr.strip()}", cure="choose another --scratch"
            )
        return image

    def _write_files(self, folder: Path, *, scratch: bool) -> None:
        plan = self._plan
        settings = {
            "modules": self.kernel.modules,
            "python": sys.executable,
            "agent": HERE / "agent.py",
            "guest": HERE / "guest",
            "scratch": "/dev/ubda" if scratch else "",
        }
        text = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
        (folder / "settings").write_text(text)
        run = {
            "command": list(plan.command),
            "environ": dict(plan.environ),
            "cwd": str(plan.cwd),
            "terminal": self._terminal,
            "writable": [str(path) for path in plan.writable],
            "steps": [
                {
                    "name": step.name,
                    "command": list(step.command),
                    "ready": step.ready,
                    "log": f"{FOLDER}/step-{number}.log",
                }
                for number, step in enumerate(plan.preparations)
            ],
        }
        (folder / "run.json").write_text(json.dumps(run))
        for name, content in plan.files.items():
            (folder / name).write_text(content)

    def _start(self, folder: Path, scratch: Path | None) -> None:
        self.line, guest_line = socket.socketpair()
        self.console, console = os.pipe()
        lifeline, self._lifeline = os.pipe()
        keeper = [sys.executable, "-I", "-S", str(HERE / "janitor.py"), ":".join(map(str, self._folders))]
        if self._preload is not None:
            keeper.append(f"--preload={self._preload}")
        command = command_line(self.kernel, self._plan, folder, scratch, guest_line.fileno())
        try:
            self.janitor = subprocess.Popen(
                [*keeper, *command],
                stdin=lifeline,
                stdout=console,
                stderr=console,
                pass_fds=[guest_line.fileno()],
                env={"TMPDIR": str(folder), "PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            os.close(self.console)
            self.line.close()
            raise
        finally:
            os.close(lifeline)
            os.close(console)
            guest_line.close()


def command_line(kernel: Kernel, plan: Plan, folder: Path, scratch: Path | None, line: int) -> list[str]:
    """Return the command that boots a kernel.

    Args:
        kernel: The kernel.
        plan: Has the memory size and the kernel's verbosity.
        folder: The run's private folder on this machine.
        scratch: Image of the scratch disk.
        line: Descriptor that becomes the first serial line.
    """
    return [
        str(kernel.image),
        f"mem={plan.memory >> 20}M",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        *("con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line}"),
        *([] if scratch is None else [f"ubda={scratch}"]),
        *(f"uml_dir={folder}", "umid=uml", "panic=-1", "nowatchdog", "audit=0"),
        f"loglevel={7 if plan.verbose else 5}",
        *("init=/bin/sh", "--", str(HERE / "guest/init.sh"), str(folder)),
    ]


def _processor_seconds(pid: int | None) -> float:
    """Return the processor time that a process has used, 0 if there is no such process (proc_pid_stat(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _check_visible(path: Path, name: str) -> None:
    for folder in HIDDEN:
        if path.is_relative_to(folder):
            raise SandboxError(
                f"{name} is in {path}, and the sandbox has a {folder} of its own",
                cure="install it elsewhere",
            )
