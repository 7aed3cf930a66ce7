"""Media that are replaced: by nothing, by another one, by an empty one, or by an older copy of themselves.

A substitute has another inode, as a new disk or a restored file has. The original is kept aside, and
can be put back. This module knows files and what a disk may say with a substitute in place, not when
that happens.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.sim.faults import NoFaults
from tests.sim.history import SECTOR, explain
from tests.sim.initiator import Initiator
from tests.sim.layers import EMPTY, FOREIGN, NOTHING, SECTORS, Medium
from tests.sim.runs import BrokenPromiseError, Run
from vscsihba.handlers.shared.vectored import read_bytes

_ASIDE: Final = ".aside"
_BETWEEN: Final = ".between"
Contents = Sequence[frozenset[bytes]]
"""For each sector of a disk, what it may read as."""


@dataclass(frozen=True)
class Copy:
    """A copy of a medium, made while the disk was closed.

    Attributes:
        tree: Its files, as `Storage.tree_below` returns them.
        contents: The disk as it was then.
    """

    tree: dict[str, bytes | None]
    contents: Contents


@dataclass
class Shelf:
    """The media of one run: which of them has a substitute, and older copies of all of them.

    Attributes:
        machine: The run.
        copies: Older copies of each medium, by its name.
        medium: The one that has a substitute now.
        kind: Of the substitute.
        is_back: The original is in its place, and the substitute aside.
    """

    machine: Run
    copies: dict[str, list[Copy]] = field(default_factory=dict)
    medium: Medium | None = None
    kind: str = ""
    is_back: bool = False
    _openings: int | None = None

    @property
    def is_behind(self) -> bool:
        """A medium is behind its copies: the disk has used its substitute, and was not opened since.

        It is an older copy of itself until then. Together with an older copy of another medium it would be a
        majority that agrees on an older disk, and nobody can tell that from a newer one.
        """
        return self._openings == self.machine.openings

    def copy(self) -> None:
        """Copy every medium of a disk that is closed; one that has a substitute is left out."""
        with self.machine.world.untouched():
            for medium in self.machine.layer.media:
                if medium is not self.medium:
                    tree = self.machine.world.storage.tree_below(self._path(medium))
                    copy = Copy(tree, self.machine.history.contents())
                    self.copies.setdefault(medium.name, []).append(copy)

    def exchange(self, medium: Medium, kind: str, copy: Copy | None = None) -> None:
        """Put a substitute in the place of a medium.

        Args:
            medium: Which; no other one has a substitute.
            kind: Of the substitute.
            copy: The older copy, for one of that kind.
        """
        path, storage = self._path(medium), self.machine.world.storage
        self.machine.exchanged = True
        with self.machine.world.untouched():
            storage.move(path, path + _ASIDE)
            size = 0 if os.path.isdir(path + _ASIDE) else os.path.getsize(path + _ASIDE)  # noqa: PTH112, PTH202
            content = {EMPTY: bytes(size), FOREIGN: foreign(size)}
            if kind != NOTHING:
                storage.add(path, {"": content[kind]} if copy is None else copy.tree)
        self.medium, self.kind, self.is_back = medium, kind, False

    def change_places(self) -> None:
        """Put the original back, or the substitute into its place again; the other one is kept aside.

        Raises:
            BrokenPromiseError: A medium that has nothing to do with the disk was written to.
        """
        assert self.medium is not None
        path, storage, is_there = self._path(self.medium), self.machine.world.storage, self.kind != NOTHING
        with self.machine.world.untouched():
            may_be_written = self.medium.is_the_disk or self.medium.name in self.machine.legs_asked_for
            if not self.is_back and self.kind == FOREIGN and not may_be_written:
                found = storage.tree_below(path)[""] or b""
                if found != foreign(len(found)):
                    raise BrokenPromiseError(f"{self.medium}: a foreign medium was written to")
            if self.is_back or is_there:
                storage.move(path, path + _BETWEEN)
            if not self.is_back or is_there:
                storage.move(path + _ASIDE, path)
            if self.is_back or is_there:
                storage.move(path + _BETWEEN, path + _ASIDE)
        self.is_back = not self.is_back

    def throw_away(self) -> None:
        """Remove the substitute; the original is in its place again."""
        assert self.is_back
        assert self.medium is not None
        with self.machine.world.untouched():
            self.machine.world.storage.discard(self._path(self.medium) + _ASIDE)
        if self.medium.has_copies:
            self._openings = self.machine.openings
        self.medium, self.kind = None, ""

    def look(self, copy: Copy | None = None) -> None:
        """Open the disk with the substitute in place: it is refused, or reads as it may.

        Raises:
            BrokenPromiseError, HistoryError: Not so.
        """
        medium = self.medium
        assert medium is not None
        expected = self._expected(medium, copy)

        def work(initiator: Initiator) -> None:
            if medium.has_copies:
                initiator.check_all(f"the disk with {medium} replaced ({self.kind})")
                return
            if expected is None:
                raise BrokenPromiseError(f"the disk opens with {medium} replaced ({self.kind})")
            content = read_bytes(initiator.disk, 0, SECTORS * SECTOR)
            for sector, allowed in enumerate(expected):
                found = content[sector * SECTOR : (sector + 1) * SECTOR]
                if found not in allowed:
                    raise BrokenPromiseError(
                        f"with {medium} replaced ({self.kind}), sector {sector} has {explain(found)}; "
                        f"allowed are {', '.join(sorted(map(explain, allowed)))}"
                    )

        self.machine.live(work, NoFaults())

    def _expected(self, medium: Medium, copy: Copy | None) -> Contents | None:
        """Return the contents that the disk may have if it is not refused; None if it must be."""
        if copy is not None:
            return copy.contents
        if not medium.is_the_disk or self.kind == NOTHING:
            return None
        content = foreign(SECTORS * SECTOR)
        return [frozenset((content[at : at + SECTOR],)) for at in range(0, len(content), SECTOR)]

    def _path(self, medium: Medium) -> str:
        return str(self.machine.world.root / medium.name)


def foreign(size: int) -> bytes:
    """Return the content of a medium that has nothing to do with the disk."""
    sectors = (
        bytes([0xF0, at % 251, at // 251 % 251, 1]) * (SECTOR // 4) for at in range(size // SECTOR + 1)
    )
    return b"".join(sectors)[:size]
