"""Writing back the pages of a disk that Linux has not yet written to it.

The kernel writes them when the last opener closes the disk (block/bdev.c, blkdev_put); until then udev or
another program may have it open. Once a LUN is being unlinked it is too late: the kernel fails every write to
a device that is going (drivers/scsi/scsi_lib.c, scsi_prep_state_check, SDEV_CANCEL), and the pages are lost.
"""

import ctypes
import errno
import os
from pathlib import Path

from vscsihba.configfs import paths
from vscsihba.errors import HostError

_WAIT_WRITE_WAIT = 7
"""SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER (linux/fs.h)."""
_libc = ctypes.CDLL(None, use_errno=True)

_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM)


def write_back(disk: Path) -> None:
    """Write the dirty pages of a disk and of its partitions; blocks meanwhile.

    A node that is gone has none. The cache of the disk is not flushed, for a disk that is being sanitized or
    formatted refuses that until the end.

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
        if sync_file_range(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(node))
    finally:
        os.close(fd)


def sync_file_range(fd: int) -> int:
    """Write the dirty pages of a whole file and wait for them (sync_file_range(2)); -1 sets errno."""
    all_of_it = (ctypes.c_int64(0), ctypes.c_int64(0))
    return int(_libc.sync_file_range(fd, *all_of_it, ctypes.c_uint(_WAIT_WRITE_WAIT)))
