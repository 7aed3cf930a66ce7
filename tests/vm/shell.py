"""Small words for driving the system's own tools in tests: run, mounted, checksum."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT = 300
KILLED = 20
"""Seconds for a program to end after SIGKILL."""
SOAK = bool(os.environ.get("VSCSIHBA_SOAK"))
"""Do what is done many times as often as was promised; takes hours under software emulation."""


def run(*words: str | Path, check: bool = True, data: bytes | None = None, limit: float = LIMIT) -> str:
    """Run a program and return its output (both streams); fail with it if the exit code is not 0.

    A program that does not end in time is killed. If it waits in the kernel even then, it is left there, so
    that the test fails with the place where it waits.
    """
    line = " ".join(map(str, words))
    process = subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output = process.communicate(data, limit)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            output = process.communicate(timeout=KILLED)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            output = f"it waits in the kernel, also after SIGKILL:\n{_kernel_stack(process.pid)}"
        raise AssertionError(f"{line}: did not end within {limit:g} s\n{output}") from None
    assert not check or process.returncode == 0, f"{line}: exit {process.returncode}\n{output}"
    return output


def _kernel_stack(pid: int) -> str:
    tasks = sorted(Path(f"/proc/{pid}/task").glob("*/stack"))
    return "\n".join(f"{task.parent.name}:\n{task.read_text()}" for task in tasks)


def settle() -> None:
    """Wait until udev has done what it was told of so far."""
    run("udevadm", "settle", "--timeout=120")


@contextmanager
def mounted(device: Path | str, where: Path, *options: str) -> Iterator[Path]:
    """Mount a file system while the context is entered."""
    where.mkdir(exist_ok=True)
    run("mount", *options, device, where)
    try:
        yield where
    finally:
        run("umount", where)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def partition(disk: Path, *parts: str) -> list[Path]:
    """Make a GPT with the given parts, ``START END`` each, and return the partitions' nodes."""
    words = [word for part in parts for word in ("mkpart", "part", *part.split())]
    run("parted", "--script", "--align=optimal", disk, "mklabel", "gpt", *words)
    settle()
    return [Path(f"{disk}{number}") for number in range(1, len(parts) + 1)]
