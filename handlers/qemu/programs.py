"""QEMU's programs: where they are, and running them so that none is left behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vscsihba.errors import HostError
from vscsihba.handlers.shared.optional import need

PACKAGES: Final = {
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
}
"""Packages of Debian and Ubuntu."""

Process = subprocess.Popen[bytes]

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_ENVIRONMENT: Final = {**os.environ, "LC_ALL": "C"}


def missing(programs: Iterable[str]) -> list[str]:
    """Return those of some programs that this machine lacks."""
    return [program for program in programs if shutil.which(program) is None]


def check_programs(programs: Iterable[str]) -> None:
    """Check that this machine has some programs.

    Raises:
        HostError: It lacks some.
    """
    if lacking := missing(programs):
        packages = sorted({PACKAGES[program] for program in lacking})
        raise HostError(
            f"handler qemu needs {' and '.join(lacking)}",
            cure=f"install {' '.join(packages)} (Debian, Ubuntu)",
        )


def check_libnbd() -> None:
    """Check that the binding of libnbd is there.

    Raises:
        HostError: It is not installed.
    """
    need("nbd", package="libnbd", debian="python3-libnbd", extra=None, user="handler qemu")


def start(
    program: str, arguments: Sequence[str], *, files: Sequence[int] = (), output: int, errors: int
) -> Process:
    """Start a program; it ends with the calling thread and, at the latest, with this process.

    A shutdown of the machine spares it, as it does this process (`vscsihba.engine.shutdown`).

    Args:
        program: Its name.
        arguments: Its arguments.
        files: Descriptors that it inherits under their numbers.
        output: Its standard output, as for `subprocess.Popen`.
        errors: Its standard error.

    Raises:
        HostError: There is no such program.
        OSError: It cannot be started.
    """
    path = shutil.which(program)
    if path is None:
        check_programs([program])
        raise HostError(f"{program} cannot be found")
    launcher = (sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), path)
    return subprocess.Popen(
        [*launcher, f"@{program}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        pass_fds=files,
        start_new_session=True,  # a Ctrl-C is not for it
        env=_ENVIRONMENT,
    )


def run(
    program: str, arguments: Sequence[str], *, files: Sequence[int] = (), timeout: float | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end.

    Args:
        program: Its name.
        arguments: Its arguments.
        files: Descriptors that it inherits under their numbers.
        timeout: Seconds after which it is killed.

    Raises:
        TimeoutError: It took longer.
        HostError, OSError: It cannot be started.
    """
    process = start(program, arguments, files=files, output=subprocess.PIPE, errors=subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{program} takes longer than {timeout:g} s") from error
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess([program, *arguments], process.returncode, output, errors)


@contextmanager
def key_object(secret: bytes | None) -> Iterator[tuple[list[int], list[str]]]:
    """Yield descriptors that a program of QEMU inherits, and options that make the key the object ``key``.

    Args:
        secret: The key; with None, both are empty.
    """
    if secret is None:
        yield [], []
        return
    fd = os.memfd_create("key", 0)
    try:
        os.write(fd, secret)
        os.lseek(fd, 0, os.SEEK_SET)
        yield [fd], ["--object", f"secret,id=key,file=/proc/self/fd/{fd}"]
    finally:
        os.close(fd)


def in_one_line(text: bytes | str) -> str:
    """Return the message of a program of QEMU in one line, without its name."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    line = " ".join(text.split())
    for program in PACKAGES:
        line = line.replace(f"@{program}: ", "").replace(f"{program}: ", "")
    return line
