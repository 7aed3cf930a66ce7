"""Crashes: the states that a disk may have after one, and two ways to bring one about.

`Promises` follows what a disk was told, and knows for every sector which contents may be
found after a crash: what it had at the last flush, or anything written to it since.

`cut_power` runs a handler on real files, keeps a record of every system call that changes
one, stops at any of them, and makes files as a power cut might leave them: of what was not
synced each sector for itself may be there or not. `kill` runs a handler in a child process
that kills itself at one of these calls, as ``kill -9`` would. `live` is one life of a disk in a row
of several: media can be absent or fail in it, and it can end in a power cut or in good order.

Beside the simulator (`tests.sim`), which has more faults, this has disks of any size, cluster size and number
of legs, chosen and shrunk by Hypothesis, processes that are really killed, and the commands that administer
overlays.
"""

import contextlib
import errno
import os
import random
import shutil
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from vscsihba.errors import VscsihbaError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.shared import linux, tmpfs_store
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read

SECTOR = 512
ZEROES = bytes(SECTOR)


# What a disk is told


@dataclass(frozen=True)
class Step:
    """One request, in sectors."""

    verb: str
    first: int = 0
    count: int = 0
    seed: int = 0


def steps(sectors: int, *, most: int = 12) -> st.SearchStrategy[list[Step]]:
    """Choose a list of requests for a disk with so many sectors."""
    ranged = st.builds(
        Step,
        st.sampled_from(["write", "write", "write", "write_fua", "write_zeroes", "unmap"]),
        st.integers(0, sectors - 1),
        st.one_of(st.integers(1, 16), st.integers(1, sectors)),
        st.integers(1, 255),
    )
    return st.lists(st.one_of(ranged, ranged, st.just(Step("flush"))), min_size=1, max_size=most)


class Promises:
    """For each sector of a disk, what may be found in it after a crash.

    Args:
        content: Content of the disk when it is opened, all of it on stable storage.
        unmap_zeroes: Unmapped sectors are zeroes; else each may be that or what it was.
    """

    def __init__(self, content: bytes, *, unmap_zeroes: bool = True) -> None:
        self.now = [content[at : at + SECTOR] for at in range(0, len(content), SECTOR)]
        self.allowed = [{sector} for sector in self.now]
        self.unmap_zeroes = unmap_zeroes
        self.unmapped: set[int] = set()
        self.unknown: set[int] = set()

    def wrote(self, first: int, data: bytes) -> None:
        """Note a write that has begun: from now on, a crash may leave it or not."""
        for number, at in enumerate(range(0, len(data), SECTOR), start=first):
            self.now[number] = data[at : at + SECTOR]
            self.allowed[number].add(self.now[number])
            self.unmapped.discard(number)
            self.unknown.discard(number)

    def unmaps(self, first: int, count: int) -> None:
        """Note an unmap that has begun."""
        if self.unmap_zeroes:
            self.wrote(first, bytes(count * SECTOR))
            return
        for number in range(first, first + count):
            self.allowed[number].add(ZEROES)
            self.unmapped.add(number)

    def keep(self, first: int, count: int) -> None:
        """Note that the present content of some sectors is safe."""
        for number in range(first, first + count):
            if number not in self.unknown:
                self.allowed[number] = {self.now[number]} | ({ZEROES} if number in self.unmapped else set())

    def failed(self, step: Step) -> None:
        """Note that a request has failed: a sector that it was to change has any of the allowed contents."""
        if step.verb != "flush":
            last = min(step.first + step.count, len(self.now))
            self.unknown.update(range(step.first, last))

    def crashed(self) -> None:
        """Note a crash: which of the allowed contents a sector has is not known from now on."""
        self.unknown = {number for number, allowed in enumerate(self.allowed) if len(allowed) > 1}

    def readable(self) -> list[set[bytes]]:
        """Return for each sector what it may read as now."""
        return [
            {sector} | ({ZEROES} if number in self.unmapped else set())
            for number, sector in enumerate(self.now)
        ]

    def begun(self, step: Step) -> None:
        """Note that a request that only some handlers know has begun."""

    def special(self, disk: Checked, step: Step) -> None:
        """Do a request that only some handlers know, and note what it promises."""
        raise NotImplementedError(step.verb)

    def check(self, content: bytes) -> None:
        """Compare a disk after a crash."""
        for number, allowed in enumerate(self.allowed):
            found = content[number * SECTOR : (number + 1) * SECTOR]
            assert found in allowed, (
                f"sector {number} has {found[:8].hex()}..., "
                f"allowed are {sorted(each[:8].hex() for each in allowed)}"
            )


def perform(disk: Checked, step: Step, promises: Promises) -> None:
    """Do one request, and note what it promises."""
    count = min(step.count, len(promises.now) - step.first)
    offset, length = step.first * SECTOR, count * SECTOR
    match step.verb:
        case "write" | "write_fua":
            fua = step.verb == "write_fua"
            data = b"".join(bytes([step.seed, number % 256]) * (SECTOR // 2) for number in range(count))
            promises.wrote(step.first, data)
            disk.write(offset, [memoryview(data)], fua=fua)
            if fua:
                promises.keep(step.first, count)
        case "write_zeroes":
            promises.wrote(step.first, bytes(length))
            disk.write_zeroes(offset, length, may_unmap=bool(step.seed % 2))
        case "unmap":
            promises.unmaps(step.first, count)
            disk.unmap(offset, length)
        case "flush":
            disk.flush()
            promises.keep(0, len(promises.now))
        case _:
            promises.begun(step)
            promises.special(disk, step)


# The power


class PowerCutError(BaseException):
    """The power is gone: nothing that happens now reaches a file."""


@dataclass(eq=False)
class _File:
    """One file as the storage knows it: what is safe, and what is under way. A directory has neither."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes, bool]] = field(default_factory=list)
    is_directory: bool = False

    def sync(self) -> None:
        for offset, data, _ in self.pending:
            _put(self.safe, offset, data)
        self.pending.clear()

    def fail_sync(self) -> None:
        """Drop the pages that are not stored, as the kernel does; writes with FUA are stored."""
        for offset, data, is_stored in self.pending:
            if is_stored:
                _put(self.safe, offset, data)
        self.pending.clear()

    def after_power_cut(self, luck: random.Random) -> bytes:
        """Apply the writes that are safe, and of the rest each sector as luck has it."""
        found, chance = bytearray(self.safe), luck.choice([0.1, 0.5, 0.9])
        for offset, data, sure in self.pending:
            at = 0
            while at < len(data):
                count = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
                if sure or luck.random() < chance:
                    _put(found, offset + at, data[at : at + count])
                at += count
        return bytes(found)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class Power:
    """A record of the system calls that change files and names in a directory.

    A name is safe when its directory was synced; of what was done to the names of a directory since then, a
    power cut leaves a part, the first ones.

    Args:
        directory: Where the files are.
        lasts: How many calls happen before the power is cut.
        broken: Tells for a file whether every call on it fails now.
    """

    def __init__(self, directory: Path, lasts: int, broken: Callable[[Path], bool] = lambda _: False) -> None:
        self.left = lasts
        self.broken = broken
        self.directory = directory
        self.files: dict[int, _File] = {}
        self.names: dict[Path, _File] = {}
        self.changes: list[tuple[Path, dict[Path, _File | None]]] = []
        for path in directory.rglob("*"):
            content = bytearray(path.read_bytes() if path.is_file() else b"")
            self.names[path] = _File(content, is_directory=path.is_dir())
            self.files[path.stat().st_ino] = self.names[path]

    @contextmanager
    def on(self) -> Iterator[None]:
        """Record from here on; everything in the package goes through these functions."""
        rename, remove, make, link = Path.replace, Path.unlink, Path.mkdir, Path.hardlink_to
        with ExitStack() as patches:
            for module, name, fake in (
                (os, "preadv", partial(self.preadv, os.preadv)),
                (os, "pwritev", partial(self.pwritev, os.pwritev)),
                (os, "fdatasync", self.sync),
                (os, "fsync", self.sync),
                (os, "ftruncate", partial(self.ftruncate, os.ftruncate)),
                (linux, "punch_hole", partial(self.freed, linux.punch_hole)),
                (linux, "zero_range", partial(self.freed, linux.zero_range)),
                (Path, "replace", lambda path, target: self.renamed(rename, path, target)),
                (Path, "unlink", lambda path, missing_ok=False: self.removed(remove, path, missing_ok)),
                (Path, "mkdir", lambda path, *args, **options: self.made(make, path, *args, **options)),
                (Path, "hardlink_to", lambda path, target: self.linked(link, path, target)),
            ):
                patches.enter_context(mock.patch.object(module, name, fake))
            yield

    def call(self) -> None:
        """Count a call, and cut the power instead if it is time."""
        if self.left == 0:
            self.cut()
        self.left -= 1

    def cut(self) -> None:
        raise PowerCutError

    def file(self, fd: int) -> _File:
        inode = os.fstat(fd).st_ino
        if inode not in self.files:
            self.files[inode] = _File()
            self.named({Path(f"/proc/self/fd/{fd}").readlink(): self.files[inode]})
        return self.files[inode]

    def named(self, change: dict[Path, _File | None]) -> None:
        """Note the changes to names of one directory."""
        ((parent, *others),) = (list({path.parent for path in change}),)
        assert not others
        if parent.is_relative_to(self.directory):
            self.changes.append((parent, change))

    def check_sound(self, fd: int) -> None:
        if self.broken(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.EIO, "Input/output error of a broken medium")

    def preadv(
        self, real: Callable[..., int], fd: int, views: Sequence[Any], offset: int, flags: int = 0
    ) -> int:
        self.check_sound(fd)
        return real(fd, views, offset, flags)

    def pwritev(
        self, real: Callable[..., int], fd: int, views: Sequence[Any], offset: int, flags: int = 0
    ) -> int:
        if stat.S_ISREG(os.fstat(fd).st_mode) and self._is_ours(fd):
            self.call()
            self.check_sound(fd)
            self.file(fd).pending.append((offset, b"".join(views), bool(flags & os.RWF_DSYNC)))
        return real(fd, views, offset, flags)

    def _is_ours(self, fd: int) -> bool:
        return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self.directory)

    def sync(self, fd: int) -> None:
        self.call()
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            if self.broken(Path(f"/proc/self/fd/{fd}").readlink()):
                self.file(fd).fail_sync()
            self.check_sound(fd)
            self.file(fd).sync()
            return
        synced = Path(f"/proc/self/fd/{fd}").readlink()
        for parent, change in self.changes:
            if parent == synced:
                self.apply(self.names, change)
        self.changes = [each for each in self.changes if each[0] != synced]

    @staticmethod
    def apply(names: dict[Path, _File], change: dict[Path, _File | None]) -> None:
        for path, file in change.items():
            if file is None:
                names.pop(path, None)
            else:
                names[path] = file

    def ftruncate(self, real: Callable[[int, int], None], fd: int, size: int) -> None:
        self.call()
        self.check_sound(fd)
        real(fd, size)
        safe = self.file(fd).safe
        safe.extend(bytes(max(0, size - len(safe))))
        del safe[size:]

    def freed(self, real: Callable[[int, int, int], None], fd: int, offset: int, length: int) -> None:
        self.check_sound(fd)
        real(fd, offset, length)
        if offset < os.fstat(fd).st_size:  # else it is only asked whether it can be done
            self.call()
            self.file(fd).pending.append((offset, bytes(length), False))

    def renamed(self, real: Callable[[Path, Any], Path], path: Path, target: Any) -> Path:
        self.call()
        file = self.files[path.stat().st_ino]
        assert not file.pending, f"{path} is renamed before it is synced"
        self.named({path: None, Path(target): file})
        return real(path, target)

    def linked(self, real: Callable[[Path, Any], None], path: Path, target: Any) -> None:
        self.call()
        file = self.files[Path(target).stat().st_ino]
        assert not file.pending, f"{target} is linked before it is synced"
        real(path, target)
        self.named({path: file})

    def made(self, real: Callable[..., None], path: Path, *args: Any, **options: Any) -> None:
        there = path.exists()
        if not there and path.is_relative_to(self.directory):
            self.call()
        real(path, *args, **options)
        if not there:
            self.files[path.stat().st_ino] = _File(is_directory=True)
            self.named({path: self.files[path.stat().st_ino]})

    def removed(self, real: Callable[..., None], path: Path, missing_ok: bool) -> None:
        if path.exists() and path.is_relative_to(self.directory):
            self.call()
            self.named({path: None})
            if path.stat().st_nlink == 1:
                self.files.pop(path.stat().st_ino, None)
        real(path, missing_ok=missing_ok)

    def leave(self, directory: Path, seed: int) -> None:
        """Put the files there as the power cut leaves them."""
        luck = random.Random(seed)
        names = dict(self.names)
        for parent in sorted({parent for parent, _ in self.changes}):
            changes = [change for where, change in self.changes if where == parent]
            for change in changes[: luck.randint(0, len(changes))]:
                self.apply(names, change)
        for path in directory.iterdir():
            (shutil.rmtree if path.is_dir() else os.unlink)(path)
        for path, file in sorted(names.items(), key=lambda item: item[0]):
            if not path.parent.is_dir():
                continue  # the directory was lost, and its files with it
            if file.is_directory:
                path.mkdir()
            else:
                path.write_bytes(file.after_power_cut(luck))


def cut_power(
    directory: Path,
    document: Document,
    promises: Promises,
    todo: Sequence[Step],
    *,
    lasts: int,
    seed: int,
) -> None:
    """Do requests until the power is cut, and check the disk as it comes back.

    Args:
        directory: Holds the files of the disk, and nothing else.
        document: The disk.
        promises: Content of the disk at the start.
        todo: The requests.
        lasts: After how many system calls the power is cut.
        seed: The luck of what was not synced.
    """
    power = Power(directory, lasts)
    with (
        TemporaryDirectory() as notes,
        mock.patch.object(tmpfs_store, "DIRECTORY", Path(notes)),
    ):
        stack = build(document, check_between=True)
        with power.on(), contextlib.suppress(PowerCutError), stack as disk:
            for step in todo:
                perform(disk, step, promises)
            power.left = 0
            power.call()
    power.leave(directory, seed)
    # Nothing is left of what survives a process only.
    with (
        TemporaryDirectory() as empty,
        mock.patch.object(tmpfs_store, "DIRECTORY", Path(empty)),
        build(document, check_between=True) as disk,
    ):
        promises.check(read(disk, 0, disk.geometry.size))


# Several lives


@dataclass(frozen=True)
class Life:
    """One life of a disk: the events while it is open once.

    Attributes:
        todo: The requests.
        lasts: After how many system calls the power is cut; None if the disk is closed in good order.
        seed: The luck of what was not synced.
        absent: Names of files that are not there.
        broken: Names of files on which every call fails, from the first request with the number `breaks` on.
        breaks: The number of that request.
    """

    todo: Sequence[Step] = ()
    lasts: int | None = None
    seed: int = 0
    absent: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    breaks: int = 0


def live(directory: Path, document: Document, promises: Promises, life: Life) -> bool:
    """Let a disk live once; a request that fails promises nothing.

    Args:
        directory: Holds the files of the disk, and nothing else.
        document: The disk.
        promises: The contents that it may have; from before, and noted on.
        life: The events.

    Returns:
        Whether it could be opened; a disk may refuse that.
    """
    away = [directory / name for name in life.absent if (directory / name).exists()]
    for path in away:
        path.rename(f"{path}.away")
    begun: list[Step] = []
    power = Power(
        directory,
        sys.maxsize if life.lasts is None else life.lasts,
        lambda path: len(begun) > life.breaks and path.name in life.broken,
    )
    opened = cut = False
    with contextlib.suppress(VscsihbaError, OSError), power.on():
        try:
            with build(document, check_between=True) as disk:
                opened = True
                promises.check(read(disk, 0, disk.geometry.size))
                for step in life.todo:
                    begun.append(step)
                    try:
                        perform(disk, step, promises)
                    except OSError:
                        promises.failed(step)
                if life.lasts is not None:
                    power.left = 0
                    power.call()
        except PowerCutError:
            cut = True
    if cut:
        power.leave(directory, life.seed)
        promises.crashed()
    for path in away:
        Path(f"{path}.away").rename(path)
    return opened


# The process


def kill(
    describe: Callable[[Path], Document], directory: Path, promises: Promises, todo: Sequence[Step], at: int
) -> bool:
    """Do requests in a child that kills itself at the `at`-th call, and check the disk.

    Whatever was acknowledged has to be there, flushed or not: the machine goes on, and so
    does the initiator, with another engine.

    Returns:
        Whether the child came that far.
    """
    acknowledged, tell = os.pipe()
    child = os.fork()
    if child == 0:
        _be_killed(describe, directory, promises, todo, at, tell)
    os.close(tell)
    with os.fdopen(acknowledged, "rb") as pipe:
        done = len(pipe.read())
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    for step in todo[:done]:
        perform(_Nothing(), step, promises)  # type: ignore[arg-type]
    promises.keep(0, len(promises.now))
    for step in todo[done : done + 1]:
        if step.verb in ("write", "write_fua", "write_zeroes", "unmap"):
            verb = "write" if step.verb == "write_fua" else step.verb
            perform(_Nothing(), Step(verb, step.first, step.count, step.seed), promises)  # type: ignore[arg-type]
        else:
            promises.begun(step)
    with build(describe(directory), check_between=True) as disk:
        promises.check(read(disk, 0, disk.geometry.size))
    return os.WIFSIGNALED(status)


class _Nothing:
    """A disk that does nothing, for noting what requests promise."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _be_killed(
    describe: Callable[[Path], Document],
    directory: Path,
    promises: Promises,
    todo: Sequence[Step],
    at: int,
    tell: int,
) -> None:
    """Be the child: never returns."""
    power = Power(directory, at)
    power.cut = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    try:
        with power.on(), build(describe(directory)) as disk:
            for step in todo:
                perform(disk, step, promises)
                os.write(tell, b".")
        os._exit(0)
    except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second pytest
        traceback.print_exc()
    finally:
        os._exit(1)
