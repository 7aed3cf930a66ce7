"""Commands on disks of layers (`cache`, `cow`, `snapshot`), against the same commands on a plain file.

Both take the whole way of a command, by turns, in one process. The files are on the same file system, and
the notes of the layers in memory, as in /run.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.command_path import BATCH, ROUNDS, Row, cdb_10, memory, serving, time_batch
from vscsihba.handlers.shared import tmpfs_store
from vscsihba.handlers.stack import Document

READ, WRITE = 0x28, 0x2A
CLUSTER: Final = 64 << 10
_SIZE: Final = ROUNDS * BATCH * CLUSTER
_LENGTHS: Final = {"4 KiB": 4 << 10, "64 KiB": CLUSTER}

HELD, NEW, BASE, ACROSS = "held", "new", "of the base", "half of the base"


@dataclass(frozen=True, slots=True)
class Case:
    """Commands of one kind on one disk.

    Attributes:
        layer: The layer.
        mode: Of a cache, else empty.
        opcode: Of the commands.
        label: Length of a command.
        where: `HELD`: blocks or clusters that the layer has; `NEW`: those that it gets by these commands;
            `BASE`: those of the disk below; `ACROSS`: half of each command is held, half is of the base.
    """

    layer: str
    mode: str
    opcode: int
    label: str
    where: str

    @property
    def name(self) -> str:
        """The name of its row."""
        verb = "READ(10)" if self.opcode == READ else "WRITE(10)"
        layer = f"{self.layer} ({self.mode})" if self.mode else self.layer
        return f"{verb} {self.label}, {layer}, {self.where}"


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for label in _LENGTHS:
        for mode in ("write-through", "write-back"):
            yield Case("cache", mode, READ, label, HELD)
            yield Case("cache", mode, WRITE, label, HELD)
            yield Case("cache", mode, WRITE, label, NEW)
        for layer in ("cow", "snapshot"):
            yield Case(layer, "", READ, label, HELD)
            yield Case(layer, "", WRITE, label, HELD)
            yield Case(layer, "", READ, label, BASE)
            yield Case(layer, "", WRITE, label, NEW)
            yield Case(layer, "", READ, label, ACROSS)


def rows() -> Iterator[Row]:
    """Measure all cases; yields each row as it is done."""
    for case in cases():
        yield measure(case)


def measure(case: Case) -> Row:
    """Measure one case."""
    length, write = _LENGTHS[case.label], case.opcode == WRITE
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-")))
        undo.enter_context(_notes_in_memory())
        _image(folder / "disk.img")
        if case.layer != "cache" and case.where == NEW:  # a new cluster gets its storage then, too
            (folder / "plain.img").touch()
            os.truncate(folder / "plain.img", _SIZE)
        else:
            _image(folder / "plain.img")
        ours = undo.enter_context(serving(_document(case, folder)))
        plain = undo.enter_context(serving({"handler": "file", "path": str(folder / "plain.img")}))
        if case.where in (HELD, ACROSS):
            stride = CLUSTER if case.where == HELD else 2 * CLUSTER
            first = [cdb_10(WRITE, at // 512, length // 512) for at in _offsets(0, stride)]
            for _ in range(2):  # a block that was written through is held once it has been read, too
                time_batch(*ours, first, length, write=True)
                time_batch(*ours, [bytes([READ]) + cdb[1:] for cdb in first], length, write=False)
        microseconds, bare = [], []
        for number in range(ROUNDS):
            start = {NEW: number * BATCH * CLUSTER, ACROSS: CLUSTER - length // 2}.get(case.where, 0)
            cdbs = [cdb_10(case.opcode, at // 512, length // 512) for at in _offsets(start, CLUSTER)]
            bare.append(time_batch(*plain, cdbs, length, write=write))
            microseconds.append(time_batch(*ours, cdbs, length, write=write))
    return Row.of(case.name, microseconds, bare, "a plain file")


def _offsets(start: int, stride: int) -> Iterator[int]:
    return iter(range(start, start + BATCH * stride, stride))


def _image(path: Path) -> None:
    """Make an image that has all of its blocks, in the page cache and on the disk."""
    content = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(0, _SIZE, len(content)):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _document(case: Case, folder: Path) -> Document:
    disk = {"handler": "file", "path": str(folder / "disk.img")}
    if case.layer == "cache":
        size = 2 * _SIZE if case.where == NEW else 64 << 20
        return {"handler": "cache", "size": size, "mode": case.mode, "next": disk}
    path = str(folder / "layer")
    below = {**disk, "read_only": True}
    return {"handler": case.layer, "path": path, "create": True, "cluster_size": CLUSTER, "next": below}


@contextmanager
def _notes_in_memory() -> Iterator[None]:
    """Keep the notes of layers in memory even where /run is not."""
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        before, tmpfs_store.DIRECTORY = tmpfs_store.DIRECTORY, Path(folder)
        try:
            yield
        finally:
            tmpfs_store.DIRECTORY = before
