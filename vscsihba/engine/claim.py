"""Locks in the run directory: who serves an HBA id, and whose turn it is to change it.

All of them are flock(2) locks, which die with the process that holds them.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vscsihba.errors import HostError, InUseError

RUN = Path("/run/vscsihba")


def run_directory(hba_id: int, run: Path = RUN) -> Path:
    """Return where the sockets, locks and journals of an HBA are; `claim_hba` makes the directory."""
    return run / f"hba{hba_id}"


@contextmanager
def claim_hba(hba_id: int, run: Path = RUN, *, shared: bool = False) -> Iterator[None]:
    """Hold the id while the context is entered.

    Args:
        hba_id: 0..255.
        run: Directory of the lock files, made if missing.
        shared: Others that claim it as shared may hold it too: engines that share an HBA do.

    Raises:
        InUseError: Another process holds it.
        HostError: The directory cannot be used.
    """
    path = run_directory(hba_id, run) / "claim.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{path.parent}: {error.strerror}") from error
    fd = _open(path)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        os.pwrite(fd, f"{os.getpid():<16}\n".encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(fd, 16, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise InUseError(
            f"id={hba_id} is already served by process {owner}", cure="choose another id, or end that process"
        ) from error
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait for the lock `path` and hold it while the context is entered."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock `path` until it is closed; None if somebody else does."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
