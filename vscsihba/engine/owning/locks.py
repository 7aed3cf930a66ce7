"""Locks in the run directory: of an HBA id, of changes of the HBA, and of each LUN.

All of them are flock(2) locks, which end with the process that holds them.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vscsihba.errors import HostError, InUseError

RUN = Path("/run/vscsihba")

SERVICE = "vscsihba"
"""Program name under which engines of the service lock an HBA id."""

_PAUSE = 0.05
"""Seconds between tries to lock what another process has locked."""


def run_directory(hba_id: int, run: Path = RUN) -> Path:
    """Return the folder of an HBA's sockets, locks and journals; `lock_hba` creates it."""
    return run / f"hba{hba_id}"


def run_directories(run: Path = RUN) -> dict[int, Path]:
    """Return the existing folder of each HBA, by its id."""
    numbers = ((folder, folder.name.removeprefix("hba")) for folder in sorted(run.glob("hba*")))
    return {int(number): folder for folder, number in numbers if number.isdecimal()}


def pid_of(socket: Path) -> int:
    """Return the process of an engine, which the name of each of its sockets has."""
    return int(socket.stem.removeprefix("engine-"))


@contextmanager
def lock_hba(hba_id: int, run: Path = RUN, *, by: str | None = None) -> Iterator[None]:
    """Hold the lock of an HBA id while the context is entered.

    Args:
        hba_id: 0..255.
        run: Directory of the lock files, created if missing.
        by: Name of the program, to share the lock with other processes of the same name, as engines of an
            HBA do. None: the lock is not shared.

    Raises:
        InUseError: Another program holds it.
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
    """Lock the file; the first of several holders locks it exclusively and writes itself into it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, f"{os.getpid():<16}{by or '':<32}\n".encode(), 0)
        if by is not None:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, name = _holder(fd)
        if by is None or by != name:
            remedy = f'run "vscsihba clear {hba_id}"' if name == SERVICE else "end that process"
            raise InUseError(
                f"HBA {hba_id} is already served by {name or 'process'} {pid}",
                cure=f"choose another id, or {remedy}",
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"HBA {hba_id} is just being released", cure="try again") from None


def holder_of(hba_id: int, run: Path = RUN) -> tuple[int, str] | None:
    """Return pid and program name of a holder of an HBA id, None if there is none."""
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
    """Return pid and program name that were written into the lock file last."""
    text = os.pread(fd, 48, 0).decode(errors="replace")
    pid = text[:16].strip()
    return int(pid) if pid.isascii() and pid.isdigit() else 0, text[16:48].strip()


class LockedError(InUseError):
    """Another process has held a lock for too long."""


@contextmanager
def hold_lock(path: Path, *, patience: float | None = None) -> Iterator[None]:
    """Wait for the lock file `path`, and hold its lock while the context is entered.

    Args:
        path: The lock file, created if missing.
        patience: Seconds to wait; None waits without a limit.

    Raises:
        LockedError: Another process still holds it by then.
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
                raise LockedError(f"another engine has held {path} for {patience:g} s") from None
            time.sleep(_PAUSE)


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of `path` until it is closed; None if another process does."""
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
