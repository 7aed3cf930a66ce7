"""The system calls of a simulated machine: each may let another fiber run, fail, or kill.

Calls on files below the root are counted, asked of the fault plan, carried out on the real file (a
tmpfs is the page cache), and told to the storage. All others pass untouched.

The module knows which function of Python makes which call; `faults` knows what can go wrong.
"""

import errno
import fcntl
import io
import itertools
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Final

from tests.sim.faults import DIES, KILL, LOST, MEMORY, POWER, REFUSED, SHORT, SLOW, NoFaults, Plan
from tests.sim.scheduler import Fiber, Killed, Process, Scheduler
from tests.sim.storage import Change, Inode, Storage
from vscsihba.handlers.shared import linux

_NOT_ON_TMPFS: Final = os.RWF_NOWAIT | getattr(os, "RWF_HIPRI", 0)
_BY_DESCRIPTOR: Final = (
    *("open", "close", "preadv", "pread", "pwritev", "pwrite", "read", "write", "ftruncate"),
    *("posix_fallocate", "lseek", "fstat", "fstatvfs", "copy_file_range", "link", "mkdir"),
)
QUIET: Final = frozenset(("read", "stat", "list", "seek", "lock", "close", "thread", "poll", "receive"))
"""Kinds of calls that leave all files as they are."""
_SLOW: Final = (0.5, 6.0, 20.0, 70.0)
"""Seconds that a slow call takes: within and beyond what a mirror waits for a leg."""
_real_mmap: Final = mmap.mmap
_FIRST: Final = 1 << 20
"""The first descriptor number of a simulated process; the kernel's are smaller."""
_numbers: Final = itertools.count(_FIRST)
_OPEN_AGAIN: Final = re.compile(r"/(?:proc/self|dev)/fd/(\d+)")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open file of a simulated process.

    Attributes:
        fd: The kernel's number for it. The process has another one, which is never used twice: what a
            dead process leaves behind may close its files once more, when its memory is collected.
        path: Of the file.
        inode: The file, as the storage knows it.
        process: The process that it belongs to.
    """

    fd: int
    path: str
    inode: Inode | None
    process: Process


class Calls:
    """The system calls, bound to one machine.

    Args:
        scheduler: The scheduler of the fibers that make them.
        storage: The files.
        power_cut: Called when the plan cuts the power, before the call has an effect.

    Attributes:
        plan: Says which fail.
        count: Calls made until now.
        trace: A line for each call, if a list is put there.
        elsewhere: Close the descriptors that are no files.
    """

    def __init__(self, scheduler: Scheduler, storage: Storage, power_cut: Callable[[], None]) -> None:
        self.plan: Plan = NoFaults()
        self.count = 0
        self.trace: list[str] | None = None
        self._scheduler = scheduler
        self._storage = storage
        self._power_cut = power_cut
        self.elsewhere: dict[int, Callable[[], object]] = {}
        self._open: dict[int, Descriptor] = {}
        self._unrecorded: set[Fiber] = set()
        self._root = storage.root + "/"

    # What every call has in common.

    def enter(self, kind: str, path: str) -> str:
        """Count a call; return ``short`` if it is to move less than it was asked to, else nothing.

        A request to another process returns how it is to fail, since its caller knows the error.

        Raises:
            OSError, MemoryError, RuntimeError: It fails.
            Killed: The process dies before the call has an effect.
        """
        self._scheduler.pause()
        how = self.ask(kind, path)
        struck = self._strike(kind, path, how) if how else ""
        if kind not in QUIET:
            self._unrecorded.discard(self._scheduler.current)
        return struck

    def take_unrecorded(self, process: Process) -> bool:
        """Return, once, whether a process that has died met a failed sync that it could not record.

        The thread that met it has changed nothing since, so nobody knows of the loss any more.
        """
        found = {fiber for fiber in self._unrecorded if fiber.process is process}
        self._unrecorded -= found
        return bool(found)

    def ask(self, kind: str, path: str) -> str:
        """Count an event, and return how it is to fail; nothing fails by this."""
        number, self.count = self.count, self.count + 1
        how = self.plan.strike(number, kind, path)
        if self.trace is not None:
            self.tell(f"{kind} {path.removeprefix(self._root)} {how}".rstrip(), number)
        return how

    def tell(self, what: str, number: int | None = None) -> None:
        """Add a line to the trace, if there is one.

        Args:
            what: The event.
            number: Of the call, if it is one.
        """
        if self.trace is not None:
            column = "" if number is None else number
            self.trace.append(f"{self._scheduler.now:.6f} {column:5} {self._scheduler.current.name}: {what}")

    def _strike(self, kind: str, path: str, how: str) -> str:
        """Let a call fail as the plan says; see `enter`."""
        if how in (KILL, POWER):
            if how == POWER:
                self._power_cut()
            self._scheduler.current.process.dead = True
            raise Killed
        if how == SLOW:
            self._scheduler.wait(lambda: False, self._scheduler.luck.choice(_SLOW))
            return ""
        if how in (SHORT, REFUSED, LOST, DIES):
            return how
        if how == MEMORY and kind != "map":
            raise MemoryError("simulated")
        if how == "thread":
            raise RuntimeError("can't start new thread")
        number = getattr(errno, how)
        if kind == "sync":
            self._lose(path)
        if kind != "close":
            raise OSError(number, os.strerror(number), path)
        return how

    def close_all(self, process: Process) -> None:
        """Close the descriptors of a dead process, as the kernel does."""
        for fd in [fd for fd, file in self._open.items() if file.process is process]:
            _real("close")(self._open.pop(fd).fd)

    def opened_by(self, process: Process) -> list[str]:
        """Return the paths of the descriptors that a process has open."""
        return [file.path for file in self._open.values() if file.process is process]

    def _lose(self, path: str) -> None:
        """Write-back of a file has failed: its pages are gone, at once or when memory gets short."""
        self._storage.failed_syncs += 1
        inode = self._storage.inode(path)
        if inode is None or not inode.pending:
            return
        left = inode.lose()
        self._storage.losses += 1
        self._unrecorded.add(self._scheduler.current)
        if self._scheduler.luck.random() < 0.5:
            inode.lost = False
            fd = _real("open")(path, os.O_WRONLY)
            _real("ftruncate")(fd, len(left))
            for at in range(0, len(left), 1 << 20):
                _real("pwrite")(fd, left[at : at + (1 << 20)], at)
            _real("close")(fd)

    def _ours(self, path: Any) -> str:
        """Return a path below the root as text, empty for any other."""
        if isinstance(path, int) or path is None:
            return ""
        text = os.fspath(path)
        return text if isinstance(text, str) and f"{text}/".startswith(self._root) else ""

    # Descriptors.

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and dir_fd in self._open and not os.path.isabs(os.fspath(path)):  # noqa: PTH117
            path, dir_fd = os.path.join(self._open[dir_fd].path, os.fspath(path)), None  # noqa: PTH118
        again = _OPEN_AGAIN.fullmatch(os.fspath(path)) if isinstance(path, str | os.PathLike) else None
        if again and (file := self._open.get(int(again[1]))):
            path = file.path
        ours = self._ours(path)
        if not ours:
            return int(_real("open")(path, flags, mode, dir_fd=dir_fd))
        self.enter("open", ours)
        fd = int(_real("open")(path, flags & ~os.O_DIRECT, mode))
        real = str(_real("readlink")(f"/proc/self/fd/{fd}"))
        inode = self._storage.inode(real)
        if inode is None and flags & os.O_CREAT and self._ours(real):
            inode = Inode()
            self._storage.name(real, inode)
        if inode is not None and flags & os.O_TRUNC and inode.cached():
            inode.pending.append(Change(0, b"", 0))
        number = next(_numbers)
        self._open[number] = Descriptor(fd, real, inode, self._scheduler.current.process)
        return number

    def close(self, fd: int) -> None:
        file = self._open.get(fd)
        if file is None:
            self.elsewhere.pop(fd, lambda: _close_unless_dead(fd))()
            return
        how = self.enter("close", file.path)
        _real("close")(self._open.pop(fd).fd)
        if how:
            raise OSError(getattr(errno, how), "simulated", file.path)

    def preadv(self, fd: int, views: Sequence[Any], offset: int, flags: int = 0) -> int:
        file = self._open.get(fd)
        if file is None:
            return int(_real("preadv")(fd, views, offset, flags))
        if self.enter("read", file.path) == SHORT:
            unit = self._storage.unit(file.path, sum(map(len, views)))
            views = _shortened(views, self._scheduler.luck.random(), unit)
        return int(_real("preadv")(file.fd, views, offset, flags & ~_NOT_ON_TMPFS))

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        file = self._open.get(fd)
        if file is not None and self.enter("read", file.path) == SHORT:
            length = max(1, length // 2)
        return bytes(_real("pread")(file.fd if file else fd, length, offset))

    def pwritev(self, fd: int, views: Sequence[Any], offset: int, flags: int = 0) -> int:
        file = self._open.get(fd)
        if file is None:
            return int(_real("pwritev")(fd, views, offset, flags))
        if self.enter("write", file.path) == SHORT:
            unit = self._storage.unit(file.path, sum(map(len, views)))
            views = _shortened(views, self._scheduler.luck.random(), unit)
        before = _real("fstat")(file.fd).st_size
        done = int(_real("pwritev")(file.fd, views, offset, flags & ~_NOT_ON_TMPFS))
        if file.inode is not None:
            sure = bool(flags & (os.RWF_DSYNC | os.RWF_SYNC))
            file.inode.write(offset, b"".join(views)[:done], before=before, sure=sure)
        return done

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        if fd not in self._open:
            return int(_real("pwrite")(fd, data, offset))
        return self.pwritev(fd, [data], offset)

    def read(self, fd: int, length: int) -> bytes:
        file = self._open.get(fd)
        if file is not None:
            self.enter("read", file.path)
        return bytes(_real("read")(file.fd if file else fd, length))

    def write(self, fd: int, data: Any) -> int:
        file = self._open.get(fd)
        if file is None:
            return int(_real("write")(fd, data))
        offset = _real("lseek")(file.fd, 0, os.SEEK_CUR)
        done = self.pwritev(fd, [data], offset)
        _real("lseek")(file.fd, offset + done, os.SEEK_SET)
        return done

    def sync(self, name: str, fd: int) -> None:
        file = self._open.get(fd)
        if file is None:
            _real(name)(fd)
        elif file.inode is None or file.inode.is_directory:
            self.enter("sync_directory", file.path)
            self._storage.sync_directory(file.path)
        else:
            self.enter("sync", file.path)
            file.inode.sync()

    def ftruncate(self, fd: int, size: int) -> None:
        file = self._open.get(fd)
        if file is not None:
            self.enter("truncate", file.path)
            if file.inode is not None:
                file.inode.pending.append(Change(0, b"", size))
        _real("ftruncate")(file.fd if file else fd, size)

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        file = self._open.get(fd)
        if file is not None:
            self.enter("allocate", file.path)
        _real("posix_fallocate")(file.fd if file else fd, offset, length)
        if file is not None and file.inode is not None:
            size = _real("fstat")(file.fd).st_size
            if size > len(file.inode.cached()):
                file.inode.pending.append(Change(0, b"", size))

    def hole(self, name: str, fd: int, offset: int, length: int) -> None:
        """``fallocate`` in one of its modes that make zeroes."""
        file = self._open.get(fd)
        if file is not None:
            self.enter("hole", file.path)
        _real(name)(file.fd if file else fd, offset, length)
        if file is not None and file.inode is not None:
            # Behind the end it only asks whether the file system can do it.
            count = max(0, min(offset + length, _real("fstat")(file.fd).st_size) - offset)
            file.inode.pending.append(Change(offset, bytes(count)))

    def lseek(self, fd: int, offset: int, how: int) -> int:
        file = self._open.get(fd)
        if file is not None and how not in (os.SEEK_CUR, os.SEEK_SET):
            self.enter("seek", file.path)
        return int(_real("lseek")(file.fd if file else fd, offset, how))

    def fstat(self, fd: int) -> os.stat_result:
        file = self._open.get(fd)
        if file is not None:
            self.enter("stat", file.path)
        found: os.stat_result = _real("fstat")(file.fd if file else fd)
        return found

    def fstatvfs(self, fd: int) -> os.statvfs_result:
        file = self._open.get(fd)
        if file is not None:
            self.enter("stat", file.path)
        found: os.statvfs_result = _real("fstatvfs")(file.fd if file else fd)
        return found

    def fcntl(self, fd: int, request: int, argument: Any = 0) -> Any:
        file = self._open.get(fd)
        if file is not None and request in (fcntl.F_OFD_SETLK, fcntl.F_SETLK):
            self.enter("lock", file.path)
        return _real("fcntl")(file.fd if file else fd, request, argument)

    def flock(self, fd: int, operation: int) -> None:
        file = self._open.get(fd)
        if file is not None:
            self.enter("lock", file.path)
        _real("flock")(file.fd if file else fd, operation)

    def ioctl(self, fd: int, request: int, *rest: Any) -> Any:
        file = self._open.get(fd)
        if file is not None:
            self.enter("clone", file.path)
        return _real("ioctl")(file.fd if file else fd, request, *rest)

    def mmap(self, fd: int, *rest: Any, **more: Any) -> mmap.mmap:
        file = self._open.get(fd)
        if file is None:
            return _real_mmap(fd, *rest, **more)
        self.enter("map", file.path)
        return _real_mmap(file.fd, *rest, **more)

    def copy_file_range(self, source: int, target: int, count: int, *rest: Any, **more: Any) -> int:
        file = self._open.get(target)
        if file is None:
            return int(_real("copy_file_range")(source, target, count, *rest, **more))
        self.enter("clone", file.path)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))  # as between two file systems: it is copied then

    # Names.

    def by_path(self, kind: str, name: str, path: Any, *rest: Any, **more: Any) -> Any:
        """A call on a name that changes nothing."""
        if isinstance(path, int):
            return self.fstat(path) if name == "stat" else _real(name)(path, *rest, **more)
        if ours := self._ours(path):
            self.enter(kind, ours)
        return _real(name)(path, *rest, **more)

    def rename(self, name: str, source: Any, target: Any, **more: Any) -> None:
        ours, to = self._ours(source), self._ours(target)
        if ours:
            self.enter("rename", ours)
        _real(name)(source, target, **more)
        if ours and (inode := self._storage.inode(ours)) is not None:
            self._storage.name(to, inode, gone=ours)

    def link(self, source: Any, target: Any, **more: Any) -> None:
        ours, to = self._ours(source), self._ours(target)
        if ours:
            self.enter("rename", ours)
        _real("link")(source, target, **more)
        if ours and (inode := self._storage.inode(ours)) is not None:
            self._storage.name(to, inode)

    def remove(self, name: str, path: Any, **more: Any) -> None:
        ours = self._ours(path)
        if ours:
            self.enter("unlink", ours)
        _real(name)(path, **more)
        if ours:
            self._storage.name(ours, None)

    def mkdir(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        ours = self._ours(path)
        if ours:
            self.enter("make_directory", ours)
        _real("mkdir")(path, mode, **more)
        if ours:
            self._storage.name(ours, Inode(is_directory=True))

    def io_open(self, file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if isinstance(file, int) and file in self._open:  # the file object closes it
            file = self._open.pop(file).fd
        elif ours := self._ours(file):
            self.enter("open", ours)
            if set(mode) & set("wax+") and not self._storage.is_volatile(ours):
                raise AssertionError(f"{ours} is written through a Python file, which is not simulated")
        return _real("io_open")(file, mode, *rest, **more)

    def patches(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield module, name and replacement of each function."""
        for name in _BY_DESCRIPTOR:
            yield os, name, getattr(self, name)
        for name in ("fsync", "fdatasync"):
            yield os, name, partial(self.sync, name)
        for name in ("punch_hole", "zero_range"):
            yield linux, name, partial(self.hole, name)
        for name, kind in (
            ("stat", "stat"),
            ("lstat", "stat"),
            ("access", "stat"),
            ("listdir", "list"),
            ("scandir", "list"),
        ):
            yield os, name, partial(self.by_path, kind, name)
        for name in ("rename", "replace"):
            yield os, name, partial(self.rename, name)
        for name in ("unlink", "remove", "rmdir"):
            yield os, name, partial(self.remove, name)
        for name in ("fcntl", "flock", "ioctl"):
            yield fcntl, name, getattr(self, name)
        yield io, "open", self.io_open
        for name in ("is_memory", "is_remote"):
            yield linux, name, lambda _fd: False


def _shortened(views: Sequence[Any], part: float, unit: int) -> list[memoryview]:
    """Return the first units of a scatter list, at least one."""
    length = sum(map(len, views))
    left = max(unit, int(length * part) // unit * unit)
    kept = []
    for view in views:
        if left > 0:
            kept.append(memoryview(view)[:left])
        left -= len(view)
    return kept


_REAL: Final[dict[str, Callable[..., Any]]] = {
    **{name: getattr(os, name) for name in dir(os) if callable(getattr(os, name)) and name[0].islower()},
    **{name: getattr(fcntl, name) for name in ("fcntl", "flock", "ioctl")},
    **{name: getattr(linux, name) for name in ("punch_hole", "zero_range")},
    "io_open": io.open,
}


def _close_unless_dead(fd: int) -> None:
    """``os.close`` outside of a machine: what is left of dead processes has nothing to close any more."""
    if fd < _FIRST:
        _real("close")(fd)


os.close = _close_unless_dead


def _real(name: str) -> Callable[..., Any]:
    return _REAL[name]


@contextmanager
def patched(replacements: Iterator[tuple[ModuleType | type, str, Any]]) -> Iterator[None]:
    """Replace functions while the context is entered."""
    before = []
    try:
        for owner, name, value in replacements:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)
