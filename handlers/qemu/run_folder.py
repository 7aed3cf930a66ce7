"""Run folders: where a daemon has its socket, and a lock that tells whether it still lives.

A folder belongs to one disk. Its name has the image, and whether it is written; its lock is held by the
handler and inherited by the daemon, so it is free only when both have ended. A killed
process leaves its folder behind: the next disk of any image removes it.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from vscsihba.errors import InUseError
from vscsihba.handlers.shared.tmpfs_store import private_directory

_PREFIX: Final = "qemu."
_PAUSE: Final = 0.02
_CREATION: Final = "qemu-folders.lock"


class RunFolder:
    """A folder that no other user can enter, for one disk.

    Args:
        image: Names the image, and no other.
        read_only: The disk is never written.
        patience: Seconds to wait for daemons of killed processes that still have the image open.

    Attributes:
        path: The folder.
        lock: Descriptor that the daemon inherits.

    Raises:
        InUseError: A daemon of a killed process still has the image open.
        HostError, OSError: The folder cannot be made.
    """

    def __init__(self, image: str, *, read_only: bool, patience: float) -> None:
        digest = hashlib.sha256(image.encode()).hexdigest()[:16]
        start = f"{_PREFIX}{digest}."
        rivals = start + "w." if read_only else start
        deadline = time.monotonic() + patience
        while True:
            with _alone():
                if not _sweep(rivals):
                    self.path = Path(
                        tempfile.mkdtemp(
                            prefix=start + ("r." if read_only else "w."), dir=private_directory()
                        )
                    )
                    self.lock = _lock(self.path)
                    return
            if time.monotonic() > deadline:
                raise InUseError(
                    "the daemon of a killed process still has the image open", cure="try again in a while"
                )
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Remove the folder, unless its daemon still lives: the next disk then waits for that."""
        with _alone(), suppress(BlockingIOError):
            os.close(self.lock)
            lock = _lock(self.path)
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from making and removing folders."""
    fd = os.open(
        private_directory() / _CREATION, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder.

    Raises:
        BlockingIOError: Another process holds it.
    """
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as failing:
        failing.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        failing.pop_all()
    return fd


def _sweep(rivals: str) -> bool:
    """Remove the folders of processes that have ended; return whether one whose name begins so is in use."""
    in_use = False
    for folder in private_directory().glob(f"{_PREFIX}*/"):
        try:
            lock = _lock(folder)
        except BlockingIOError:
            in_use |= folder.name.startswith(rivals)
            continue
        except OSError:
            continue  # a folder that nothing can be said of, such as one that is being removed by hand
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    return in_use
