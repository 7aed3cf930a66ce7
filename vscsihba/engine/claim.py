"""Claims: which process serves an HBA id, said by a lock that dies with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vscsihba.errors import HostError, InUseError

RUN = Path("/run/vscsihba")


@contextmanager
def claim_hba(hba_id: int, run: Path = RUN) -> Iterator[None]:
    """Hold the id while the context is entered.

    Args:
        hba_id: 0..255.
        run: Directory of the lock files, made if missing.

    Raises:
        InUseError: Another process holds it.
        HostError: The directory cannot be used.
    """
    path = run / f"hba{hba_id}.lock"
    try:
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    try:
        _lock(fd, hba_id)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, hba_id: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(fd, 16, 0).decode(errors="replace").strip() or "unknown"
        raise InUseError(
            f"id={hba_id} is already served by process {owner}", cure="choose another id, or end that process"
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
