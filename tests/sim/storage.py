"""Storage of a simulated machine: which bytes and names are there after the power was cut.

The page cache is real: files on a tmpfs, so that a process that was killed leaves them as they are.
Beside them this module keeps what the medium has. A write is *pending* until its file is synced, a
name until its directory is synced. A power cut keeps any subset of what is pending: of a write each
piece of 512 or 4096 bytes for itself, a creation, a rename or an unlink as a whole.

It knows inodes and paths, no descriptors and no system call.
"""

import os
import random
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

_PAGE: Final = 4096
_ZEROES: Final = bytes(_PAGE)


class Change(NamedTuple):
    """A change of a file that the medium may not have yet.

    Attributes:
        offset: Where, in bytes.
        data: The new bytes; none for a change of the length.
        size: The new length, -1 if the change has bytes.
        sure: The change is on stable storage already.
    """

    offset: int
    data: bytes
    size: int = -1
    sure: bool = False

    def apply(self, content: bytearray) -> None:
        """Make the change."""
        if self.size >= 0:
            content.extend(bytes(max(0, self.size - len(content))))
            del content[self.size :]
        else:
            _put(content, self.offset, self.data)


@dataclass(eq=False)
class Inode:
    """A file as the medium knows it.

    Attributes:
        safe: Content on stable storage, as of the last sync.
        pending: Changes since then, in order.
        lost: The page cache has bytes that no sync will ever write.
        is_directory: It has no content of its own.
    """

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    lost: bool = False
    is_directory: bool = False

    def write(self, offset: int, data: bytes, *, before: int, sure: bool = False) -> None:
        """Note that bytes were written.

        Bytes behind the end make the file longer, and that length is a change of its own: the medium may have
        it without the bytes. Bytes on stable storage have a length there that includes them.

        Args:
            offset: Where.
            data: The bytes.
            before: The length of the file before.
            sure: They are on stable storage already.
        """
        if offset + len(data) > before:
            self.pending.append(Change(0, b"", offset + len(data)))
        if sure:
            self.pending = [each._replace(sure=True) if each.size >= 0 else each for each in self.pending]
        self.pending.append(Change(offset, data, sure=sure))

    def sync(self) -> None:
        """Put everything on stable storage."""
        for change in self.pending:
            change.apply(self.safe)
        self.pending.clear()

    def lose(self) -> bytes:
        """Forget the pending bytes, as after a failed write-back; return the content of the medium.

        A change of the length is metadata, which a file system keeps for later, or fails as a whole.
        """
        self.pending = [change for change in self.pending if change.sure or change.size >= 0]
        self.lost = True
        return self.cached()

    def cached(self) -> bytes:
        """Return the content of the page cache, unless something was lost."""
        found = bytearray(self.safe)
        for change in self.pending:
            change.apply(found)
        return bytes(found)

    def after_power_cut(self, luck: random.Random) -> bytes:
        """Return the safe content, with those of the pending changes that the luck has chosen."""
        found = bytearray(self.safe)
        chance, unit = luck.choice([0.0, 0.2, 0.5, 0.8, 1.0]), luck.choice([512, 4096])
        for change in self.pending:
            if change.sure or change.size >= 0:
                if change.sure or luck.random() < chance:
                    change.apply(found)
                continue
            offset, data = change.offset, change.data
            at = 0
            while at < len(data):
                count = min(unit - (offset + at) % unit, len(data) - at)
                if luck.random() < chance:
                    _put(found, offset + at, data[at : at + count])
                at += count
        return bytes(found)


class Storage:
    """All files below a directory.

    Args:
        root: The directory, on a tmpfs; what is there is on stable storage.
        volatile: Paths below it that a restart of the machine empties, such as ``/run``.
        tree: The files to make, as by `put`; None to leave those that are there.

    Attributes:
        losses: How often a sync has failed and left pages that will never be written.
        failed_syncs: How often a sync has failed at all.
    """

    def __init__(
        self, root: Path, volatile: tuple[str, ...] = (), tree: Mapping[str, bytes | None] | None = None
    ) -> None:
        self.root = str(root)
        self.losses = self.failed_syncs = 0
        self._volatile = tuple(os.path.join(self.root, name) for name in volatile)  # noqa: PTH118
        self._names: dict[str, Inode] = {}
        self._pending: list[tuple[str, list[tuple[str, Inode | None]]]] = []
        if tree is None:
            self._scan()
        else:
            self.put(tree)
        self._safe_names = dict(self._names)

    def is_volatile(self, path: str) -> bool:
        """Tell whether a restart of the machine empties a path."""
        return path.startswith(self._volatile)

    def unit(self, path: str, length: int) -> int:
        """Return the bytes that a short count is a multiple of: sectors, but words in memory.

        A tmpfs copies a page as a whole, so it tears no sector of a request that has whole sectors.

        Args:
            path: Of the file.
            length: Bytes of the request.
        """
        return 8 if path.startswith(self._volatile) and length % 512 else 512

    def inode(self, path: str) -> Inode | None:
        """Return the inode that a path names now."""
        return self._names.get(path)

    def name(self, path: str, inode: Inode | None, *, gone: str = "") -> None:
        """Note that a path names something else from now on, nothing if None.

        Args:
            path: Absolute.
            inode: The inode that it names.
            gone: Another path that names nothing from the same moment on, for a rename.
        """
        changes = [(path, inode), *([(gone, None)] if gone else [])]
        for each, now in changes:
            if now is None:
                self._names.pop(each, None)
            else:
                self._names[each] = now
        self._pending.append((os.path.dirname(path), changes))  # noqa: PTH120

    def sync_directory(self, path: str) -> None:
        """Put the names in a directory on stable storage."""
        kept = []
        for directory, changes in self._pending:
            if directory == path:
                _rename(self._safe_names, changes)
            else:
                kept.append((directory, changes))
        self._pending = kept

    def check_all_seen(self) -> None:
        """Compare the page cache with the files: a difference was made by a call that nobody simulates.

        Raises:
            AssertionError: There is one.
        """
        for path, inode in self._names.items():
            if inode.is_directory or inode.lost or path.startswith(self._volatile):
                continue
            found = Path(path).read_bytes()
            assert found == inode.cached(), f"the simulator missed a change of {path}"

    def cut_power(self, luck: random.Random) -> None:
        """Make the files what a power cut leaves of them."""
        self.check_all_seen()
        names = dict(self._safe_names)
        chance = luck.choice([0.0, 0.5, 1.0])
        for _, changes in self._pending:
            if luck.random() < chance:
                _rename(names, changes)
        # One content for each file, however many names it has.
        contents: dict[int, bytes] = {}
        for inode in names.values():
            if not inode.is_directory and id(inode) not in contents:
                contents[id(inode)] = inode.after_power_cut(luck)
        self.put({path: None if inode.is_directory else contents[id(inode)] for path, inode in names.items()})

    def put(self, tree: Mapping[str, bytes | None]) -> None:
        """Make the files exactly these, all of them safe; a path with None is a directory."""
        kept = set()
        for entry in os.scandir(self.root):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif (content := tree.get(entry.path)) is not None and _has(entry.path, content):
                kept.add(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
        for path in sorted(tree):
            content = tree[path]
            if path.startswith(self._volatile) or not os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120
                continue
            if content is None:
                os.mkdir(path, 0o700)  # noqa: PTH102
            elif path not in kept:
                write_file(path, content)
        for path in self._volatile:
            os.makedirs(path, 0o700)  # noqa: PTH103
        self._names = {
            path: Inode(is_directory=True) if content is None else Inode(bytearray(content))
            for path, content in tree.items()
            if os.path.lexists(path) and not path.startswith(self._volatile)
        }
        self._names |= {path: Inode(is_directory=True) for path in self._volatile}
        self._safe_names, self._pending = dict(self._names), []

    def durable(self, path: str) -> bytes | None:
        """Return the content of a file that every power cut leaves as it is, None if there is none."""
        inode = self._safe_names.get(path)
        is_pending = any(path == name for _, changes in self._pending for name, _ in changes)
        return None if inode is None or inode.pending or is_pending else bytes(inode.safe)

    def tree(self) -> dict[str, bytes | None]:
        """Return every file as it is now, for `put`."""
        return {
            path: None if inode.is_directory else Path(path).read_bytes()
            for path, inode in self._names.items()
        }

    def tree_below(self, path: str) -> dict[str, bytes | None]:
        """Return a file, or a directory with its files, as they are now; names are relative to `path`."""
        return {
            name[len(path) :]: None if inode.is_directory else Path(name).read_bytes()
            for name, inode in self._names.items()
            if name == path or name.startswith(f"{path}/")
        }

    def add(self, path: str, tree: dict[str, bytes | None]) -> None:
        """Make files that are on stable storage, as `tree_below` has returned them."""
        for name in sorted(tree):
            content = tree[name]
            if content is None:
                os.mkdir(path + name, 0o700)  # noqa: PTH102
            else:
                write_file(path + name, content)
            inode = Inode(is_directory=True) if content is None else Inode(bytearray(content))
            self._names[path + name] = self._safe_names[path + name] = inode

    def move(self, path: str, to: str) -> None:
        """Give a file, or a directory with its files, another name at once, as if the machine had slept."""
        self._sync_names()
        os.rename(path, to)  # noqa: PTH104
        for names in (self._names, self._safe_names):
            for name in [name for name in names if name == path or name.startswith(f"{path}/")]:
                names[to + name[len(path) :]] = names.pop(name)

    def discard(self, path: str) -> None:
        """Remove a file, or a directory with its files, if it is there."""
        self._sync_names()
        if os.path.lexists(path):
            (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)  # noqa: PTH112
        for names in (self._names, self._safe_names):
            for name in [name for name in names if name == path or name.startswith(f"{path}/")]:
                del names[name]

    def _sync_names(self) -> None:
        """Put every name on stable storage."""
        for directory in {directory for directory, _ in self._pending}:
            self.sync_directory(directory)

    def _scan(self) -> None:
        nodes: dict[int, Inode] = {}
        for folder, folders, files in os.walk(self.root):
            for name in folders:
                self._names[f"{folder}/{name}"] = Inode(is_directory=True)
            for name in files:
                path = f"{folder}/{name}"
                number = os.stat(path).st_ino  # noqa: PTH116
                if number not in nodes:
                    nodes[number] = Inode(bytearray(Path(path).read_bytes()))
                self._names[path] = nodes[number]


def write_file(path: str, content: bytes, *, real_open: Callable[..., int] = os.open) -> None:
    """Write a file, with holes where it is zeroes."""
    fd = real_open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.ftruncate(fd, len(content))
        for at, end in _data(content):
            os.pwrite(fd, memoryview(content)[at:end], at)
    finally:
        os.close(fd)


@lru_cache(64)
def _data(content: bytes) -> tuple[tuple[int, int], ...]:
    """Return where the runs of pages begin and end that are not zeroes."""
    pieces = (content[at : at + _PAGE] for at in range(0, len(content), _PAGE))
    runs, at = [], 0
    for is_data, run in groupby(pieces, key=lambda piece: piece != _ZEROES[: len(piece)]):
        end = at + sum(map(len, run))
        if is_data:
            runs.append((at, end))
        at = end
    return tuple(runs)


def _has(path: str, content: bytes) -> bool:
    """Tell whether `write_file` would make the file what it is: its content, its holes and its only name."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_size != len(content):
        return False
    if status.st_blocks * 512 != sum(-(-(end - at) // _PAGE) * _PAGE for at, end in _data(content)):
        return False
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read() == content


def _rename(names: dict[str, Inode], changes: list[tuple[str, Inode | None]]) -> None:
    for path, inode in changes:
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _put(content: bytearray, offset: int, data: bytes) -> None:
    """Put bytes into a content, as far as it has a place for them."""
    end = min(offset + len(data), len(content))
    if offset < end:
        content[offset:end] = data[: end - offset]
