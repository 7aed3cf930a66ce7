"""The layers of a disk with snapshots, opened, one on the other."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cow.disk import Below, BelowHandler, CowDisk
from vscsihba.handlers.cow.inline import inline_verbs
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.cow.overlay_file import open_overlay


class Layers:
    """A layer and those below it, down to the base.

    Everything but the topmost one is frozen, and may be open elsewhere.

    Args:
        directory: Where the layers are.
        names: From the top down.
        base: The open base.
        read_only: None of them will be written.

    Attributes:
        names: From the top down.

    Raises:
        UsageError, InUseError, HostError: A layer cannot be opened.
    """

    def __init__(self, directory: Path, names: Sequence[str], base: Handler, *, read_only: bool) -> None:
        self.names = list(names)
        self._base = base
        self._disks: list[CowDisk] = []
        below: Below = BelowHandler(base)
        try:
            for name in reversed(names):
                path = str(layer_path(directory, name))
                overlay = open_overlay(path, read_only=read_only, frozen=name != names[0])
                below = CowDisk(overlay, below)
                self._disks.insert(0, below)
        except BaseException:
            self.close()
            raise

    @property
    def top(self) -> CowDisk:
        """The whole disk."""
        return self._disks[0]

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the disk, as its layers are now."""
        return inline_verbs(self._disks, self._base)

    def disk(self, name: str) -> CowDisk:
        """Return the disk with a layer on top."""
        return self._disks[self.names.index(name)]

    def put_on_top(self, name: str, disk: CowDisk) -> None:
        """Add a layer that lies on the topmost one."""
        self.names.insert(0, name)
        self._disks.insert(0, disk)

    def take_out(self, name: str) -> Overlay:
        """Take out a layer that the one on it no longer needs; return it for closing."""
        at = self.names.index(name)
        disk = self._disks.pop(at)
        del self.names[at]
        self._disks[at - 1].below = disk.below
        return disk.overlay

    def close(self) -> None:
        """Close every layer, all of them even if one fails.

        Raises:
            OSError: The topmost one could not be flushed.
        """
        with ExitStack() as closing:
            for disk in reversed(self._disks):
                closing.callback(disk.overlay.close)

    def abandon(self) -> None:
        """Close every layer; unflushed changes of the topmost one are discarded.

        Raises:
            OSError: A file could not be closed.
        """
        with ExitStack() as closing:
            for disk in reversed(self._disks[1:]):
                closing.callback(disk.overlay.close)
            closing.callback(self.top.overlay.abandon)


def layer_path(directory: Path, name: str) -> Path:
    """Return the file of a layer."""
    return directory / f"{name}.layer"
