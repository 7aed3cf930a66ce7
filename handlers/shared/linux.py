"""System calls that the standard library lacks: fallocate(2), fstatfs(2), prctl(2), block device ioctls.

Every function raises ``OSError`` with the kernel's errno. What
they are good for is the caller's knowledge. Constants are from ``linux/falloc.h``,
``linux/magic.h``, ``linux/prctl.h`` and ``linux/fs.h``.
"""

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_FALLOC_FL_ZERO_RANGE = 0x10

_PR_SET_DUMPABLE = 4

_TMPFS_MAGIC = 0x01021994
_RAMFS_MAGIC = 0x858458F6

# NFS, SMB and CIFS, CephFS, AFS, 9P, Lustre, OrangeFS; FUSE, whose storage is another process.
_REMOTE_MAGICS = (
    *(0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x00C36400, 0x5346414F, 0x6B414653, 0x01021997),
    *(0x0BD00BD0, 0x20030528, 0x65735546),
)

# These five have no argument size in their numbers, so they are the same everywhere.
_BLKSSZGET = 0x1268
_BLKDISCARD = 0x1277
_BLKIOOPT = 0x1279
_BLKPBSZGET = 0x127B
_BLKROTATIONAL = 0x127E

# _IOR(0x12, 128, __u64), _IOR('v', 1, long); the kernel puts an int there.
_BLKGETDISKSEQ = 0x80081280
_FS_IOC_GETVERSION = 0x80087601

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.fallocate.restype = ctypes.c_int
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.fstatfs.restype = ctypes.c_int


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Deallocate a range, which reads as zeroes then; the file keeps its size.

    On a block device the kernel does this only if the device can promise the zeroes.

    Raises:
        OSError: EOPNOTSUPP if the file system or the device cannot.
    """
    _fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeroes and keep storage for it; the file keeps its size.

    Raises:
        OSError: EOPNOTSUPP if the file system or the device cannot; EINVAL if the range
            is not aligned to the blocks of a device.
    """
    _fallocate(fd, _FALLOC_FL_ZERO_RANGE | _FALLOC_FL_KEEP_SIZE, offset, length)


def allocate(fd: int, offset: int, length: int) -> None:
    """Set storage aside for a range; its bytes and the size of the file stay.

    A file system that cannot, such as ramfs, is left unchanged.

    Raises:
        OSError: ENOSPC if there is no room.
    """
    try:
        _fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, length)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def discard(fd: int, offset: int, length: int) -> None:
    """Tell a block device that nobody needs a range; what it reads as then is open.

    Raises:
        OSError: EOPNOTSUPP if the device cannot.
    """
    fcntl.ioctl(fd, _BLKDISCARD, struct.pack("QQ", offset, length))


def block_sizes(fd: int) -> tuple[int, int, int]:
    """Return logical block, physical block and optimal transfer of a block device, in bytes."""
    return _ioctl_int(fd, _BLKSSZGET), _ioctl_int(fd, _BLKPBSZGET), _ioctl_int(fd, _BLKIOOPT)


def is_rotational(fd: int) -> bool:
    """Return whether seeks cost on a block device."""
    answer = fcntl.ioctl(fd, _BLKROTATIONAL, bytes(2))
    return answer != bytes(2)


def discard_granularity(fd: int) -> int:
    """Return the bytes that a block device discards at once, 0 if it cannot discard.

    A partition answers with the queue of its disk (Documentation/ABI/stable/sysfs-block).
    """
    device = os.fstat(fd).st_rdev
    home = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    queue = next((at / "queue" for at in (home, home.parent) if (at / "queue").is_dir()), None)
    if queue is None or int((queue / "discard_max_bytes").read_text()) == 0:
        return 0
    return int((queue / "discard_granularity").read_text())


def disk_sequence(fd: int) -> int:
    """Return a number that no other disk has had since boot (BLKGETDISKSEQ), 0 if there is none."""
    try:
        (value,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETDISKSEQ, bytes(8)))
    except OSError:
        return 0
    return int(value)


def inode_generation(fd: int) -> int:
    """Return the number that tells a file from an earlier one with its inode number, 0 if unknown."""
    try:
        (value,) = struct.unpack("I", fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))[:4])
    except OSError:
        return 0
    return int(value)


def is_traced() -> bool:
    """Return whether this thread is traced (``TracerPid`` of proc(5)), and so stopped in every call."""
    try:
        status = Path("/proc/thread-self/status").read_text()
    except OSError:
        return False
    return "TracerPid:\t0\n" not in status


def is_memory(fd: int) -> bool:
    """Return whether the page cache is all the storage that a file has (tmpfs, ramfs).

    ``f_type`` comes first in ``struct statfs`` and is a long, but for s390, where the
    answer is then no, which is the safe one. A device node may lie in a tmpfs, its storage does not.
    """
    return stat.S_ISREG(os.fstat(fd).st_mode) and _file_system(fd) in (_TMPFS_MAGIC, _RAMFS_MAGIC)


def is_remote(fd: int) -> bool:
    """Return whether another machine or process stores a file, which may hang on its own."""
    return stat.S_ISREG(os.fstat(fd).st_mode) and _file_system(fd) in _REMOTE_MAGICS


def _file_system(fd: int) -> int:
    """Return the type of a file system, one of ``linux/magic.h``."""
    buffer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(fd, buffer):
        raise _error()
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF


def memory_total() -> int:
    """Return the bytes of memory that this machine has, or that its control group allows it."""
    return min([_meminfo("MemTotal"), *(limit for limit, _ in _group_limits())])


def memory_available() -> int:
    """Return the bytes of memory that can be taken without swapping, in this control group."""
    rest = (max(0, limit - used) for limit, used in _group_limits())
    return min([_meminfo("MemAvailable"), *rest])


def forbid_core_dumps() -> None:
    """Keep the memory of this process out of core files and away from debuggers (prctl(2)).

    Raises:
        OSError: The kernel refused.
    """
    if _libc.prctl(
        _PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    ):
        raise _error()


def _meminfo(field: str) -> int:
    """Return a value of /proc/meminfo (proc_meminfo(5)) in bytes."""
    lines = _MEMINFO.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def _group_limits() -> Iterator[tuple[int, int]]:
    """Yield limit and use of memory, in bytes, of this process' control group and those that hold it.

    After Documentation/admin-guide/cgroup-v2.rst; there are none with version 1.
    """
    unified = [line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::")]
    for name in unified:
        group = _GROUPS / name.lstrip("/")
        for at in (group, *group.parents):
            limit = at / "memory.max"
            if limit.is_file() and (most := limit.read_text().strip()) != "max":
                # Page cache counts as used, and is given back when memory is needed.
                used = int((at / "memory.current").read_text()) - _file_pages(at / "memory.stat")
                yield int(most), used


def _file_pages(statistics: Path) -> int:
    lines = statistics.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("active_file ", "inactive_file ")))


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, offset, length):
        raise _error()


def _ioctl_int(fd: int, request: int) -> int:
    (value,) = struct.unpack("I", fcntl.ioctl(fd, request, bytes(4)))
    return int(value)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
