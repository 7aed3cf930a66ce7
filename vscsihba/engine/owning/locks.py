"""Locks in the run directory: who serves an HBA id, and whose turn it is to change it.

All of them are flock(2) locks, which die with the process that holds them.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vscsihba.errors import HostError, InUseError

RUN = Path("/run/vscsihba")

_PAUSE = 0.05
"""Seconds between tries to lock what another process has locked."""


def run_directory(hba_id: int, run: Path = RUN) -> Path:
    """Return where the sockets, locks and journals of an HBA are; `lock_hba` makes the directory."""
    return run / f"hba{hba_id}"


@contextmanager
def lock_hba(hba_id: int, run: Path = RUN, *, by: str | None = None) -> Iterator[None]:
    """Hold the id while the context is entered.

    Args:
        hba_id: 0..255.
        run: Directory of the lock files, made if missing.
        by: Who claims it, in a word; several that say the same may hold it at once, as engines of one
            HBA do. None: nobody else may.

    Raises:
        InUseError: Another process holds it.
        HostError: The directory cannot be used.
    """
    directory = run_directory(hba_id, run)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{directory}: {error.strerror}") from error
    fd = _open(directory / "claim.lock")
    try:
        with hold_lock(directory / "claiming.lock"):
            _lock_shared(fd, hba_id, by)
        yield
    finally:
        os.close(fd)


def _lock_shared(fd: int, hba_id: int, by: str | None) -> None:
    """Lock the claim, and write down who has; only the first of those that share it is alone for a moment."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, f"{os.getpid():<16}{by or '':<32}\n".encode(), 0)
        if by is not None:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, name = _holder(fd)
        if by is None or by != name:
            raise InUseError(
                f"HBA {hba_id} is already served by {name or 'process'} {pid}",
                cure="choose another id, or end that process",
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"HBA {hba_id} is just being released", cure="try again") from None


def holder_of(hba_id: int, run: Path = RUN) -> tuple[int, str] | None:
    """Return the pid and the word of one that holds an id, None if nobody does."""
    path = run_directory(hba_id, run) / "claim.lock"
    if not path.exists():
        return None
    with hold_lock(path.with_name("claiming.lock")):
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _holder(fd)
        finally:
            os.close(fd)


def _holder(fd: int) -> tuple[int, str]:
    """Return who has written into the claim last."""
    text = os.pread(fd, 48, 0).decode(errors="replace")
    pid = text[:16].strip()
    return int(pid) if pid.isascii() and pid.isdigit() else 0, text[16:48].strip()


class LockedError(InUseError):
    """Another process has kept a lock for too long."""


@contextmanager
def hold_lock(path: Path, *, patience: float | None = None) -> Iterator[None]:
    """Wait for the lock `path` and hold it while the context is entered.

    Args:
        path: Of the lock file, made if missing.
        patience: Seconds to wait; None waits for ever.

    Raises:
        LockedError: Another process has not released it by then.
    """
    fd = _open(path)
    try:
        if patience is None:
            fcntl.flock(fd, fcntl.LOCK_EX)
        else:
            _lock_within(fd, patience, path)
        yield
    finally:
        os.close(fd)


def _lock_within(fd: int, patience: float, path: Path) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockedError(f"{path} is locked by another engine for {patience:g} s") from None
            time.sleep(_PAUSE)


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
