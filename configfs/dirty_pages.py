"""Writing back the pages of a disk that Linux has not yet written to it.

The kernel writes them when the last opener closes the disk (block/bdev.c, blkdev_put); until then udev or
another program may have it open. Once a LUN is being unlinked it is too late: the kernel fails every write to
a device that is going (drivers/scsi/scsi_lib.c, scsi_prep_state_check, SDEV_CANCEL), and the pages are lost.
"""

import errno
import os
from pathlib import Path

from vscsihba.configfs import paths
from vscsihba.errors import HostError

_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM)


def write_back(disk: Path) -> None:
    """Write the dirty pages of a disk and of its partitions, and flush the disk's cache; blocks meanwhile.

    A node that is gone has none.

    Args:
        disk: Its node, ``/dev/sdX``.

    Raises:
        HostError: The disk has refused some of them; the rest is written all the same.
    """
    device = paths.SYSFS / "class" / "block" / disk.name
    partitions = [entry.name for entry in paths.entries(device) if (entry / "partition").exists()]
    failure: OSError | None = None
    for name in [*partitions, disk.name]:
        try:
            _sync(paths.DEV / name)
        except OSError as error:
            if error.errno not in _GONE:
                failure = failure or error
    if failure is not None:
        raise HostError(
            f"{disk}: Linux could not write all data to it: {failure.strerror}",
            cure="see dmesg for the kernel's reason",
        )


def _sync(node: Path) -> None:
    # Read-only: udev acts on a close after an open for writing.
    fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
