"""Exclusive claims on block devices: whether the kernel or a program has one.

File systems in every mount namespace, external journals, swap, device mapper, md, zfs and programs such as
mkfs open a device with ``O_EXCL`` (open(2); block/bdev.c, bd_may_claim()). The check does the same for a
moment: the kernel refuses with EBUSY if there is another claim on the disk or on one of its partitions.
"""

import errno
import os
import stat
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from vscsihba.threads import start

_PATIENCE: Final = 5.0
"""Seconds for an open to return: during error recovery of a disk without a server it may take minutes."""

_FLAGS: Final = os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC


def is_claimed(node: Path, patience: float = _PATIENCE) -> bool | None:
    """Return whether a block device or a partition of it is claimed for exclusive use.

    Args:
        node: Its node, ``/dev/sdX``.
        patience: Seconds to wait for the answer.

    Returns:
        None if that is unknown: the node is no block device, may not be opened, or does not answer.
    """
    answers: SimpleQueue[bool | None] = SimpleQueue()
    asking = threading.Thread(target=lambda: answers.put(_ask(node)), name=f"claim {node.name}", daemon=True)
    try:
        start(asking)
    except OSError:  # no thread can be started
        return None
    try:
        return answers.get(timeout=patience)
    except Empty:
        return None


def _ask(node: Path) -> bool | None:
    try:
        if not stat.S_ISBLK(node.stat().st_mode):
            return None
        os.close(os.open(node, _FLAGS))
    except OSError as error:
        return True if error.errno == errno.EBUSY else None
    return False
