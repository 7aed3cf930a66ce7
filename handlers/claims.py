"""Claims: a name that only one open disk of this machine has at a time, such as the UUID of a container.

A copy of a medium carries the UUID of the original. Were both disks at once, they would have one serial
number and one NAA designator, and multipath would take them for two paths to one disk.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vscsihba.errors import InUseError
from vscsihba.handlers.surviving import private_directory


@contextmanager
def claim_name(name: str, *, shared: bool, taken: InUseError) -> Iterator[None]:
    """Have a name while the context is entered; the end of the process ends the claim as well.

    Args:
        name: Any text.
        shared: Others that share it may have it too.
        taken: Raised when another disk has the name.

    Raises:
        InUseError: `taken`.
        HostError, OSError: The directory for claims cannot be used.
    """
    path = private_directory() / f"claim.{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise taken from error
        yield
    finally:
        os.close(fd)
