"""snapshot: named snapshots of a disk while it is in use.

Taking one costs a flush and an empty layer, and so does rolling back; deleting one merges
what no other needs. With the option `snapshot` the disk is one of them, read-only; put `cow`
on top of that to write to a copy.

This module knows the verbs; `snapshot_set` knows the set of snapshots, `cow.disk` how a layer
works.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from vscsihba.block import Capabilities, ExtentStatus, Geometry, Views
from vscsihba.handlers.actions import Action, NoArguments, ReportProgress, quiet
from vscsihba.handlers.base import BatchedWrite, Handler, InlineVerbs, note_batched
from vscsihba.handlers.cow.format import OPTIMAL_IO
from vscsihba.handlers.file import path as file_path
from vscsihba.handlers.filter import Transform
from vscsihba.handlers.options import FilePath, Options
from vscsihba.handlers.snapshot.inline import InlineSet
from vscsihba.handlers.snapshot.snapshot_set import SnapshotInfo, SnapshotSet, check_set, create_set

log = logging.getLogger(__name__)


class SnapshotName(Options):
    """Properties of one snapshot."""

    name: Annotated[str, Meta(description="Name of the snapshot.", min_length=1)]


class SnapshotHandler(Transform):
    """Snapshots of a disk, or one of them as a disk."""

    name = "snapshot"
    example = "snapshot:/srv/disk.snapshots;create=true|/srv/disk.img"
    workers = 8
    only_reads = True

    class Options(Handler.Options, kw_only=True):
        """Options of the snapshot filter."""

        path: Annotated[FilePath, Meta(description="The directory of the snapshots.", min_length=1)]
        create: Annotated[bool, Meta(description="Create the directory if it is missing.")] = False
        snapshot: Annotated[
            str, Meta(description="Snapshot to open read-only; default: the disk itself.")
        ] = ""
        cluster_size: Annotated[
            Literal[4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576],
            Meta(description="Cluster of a new directory in bytes: the unit of copying on the first write."),
        ] = 65536

        def __post_init__(self) -> None:
            """Refuse options that contradict each other."""
            if self.snapshot and self.create:
                raise ValueError('a "snapshot" is not made by opening it')

    options: Options

    def check(self) -> None:
        """Check that the set is there, and the snapshot in it."""
        wanted = self.options
        if wanted.create and not self.may_make and not (Path(wanted.path) / "manifest").exists():
            raise file_path.lost(wanted.path, "set of snapshots")
        check_set(Path(wanted.path), wanted.snapshot, create=wanted.create and self.may_make)

    def open(self) -> None:
        """Open the layers, making a set if asked to.

        Raises:
            HostError: The set belongs to another base, or this one has changed.
            InUseError: Another disk has it.
        """
        wanted, directory = self.options, Path(self.options.path)
        if wanted.create and self.may_make:
            create_set(directory, self.next, self.next.geometry, wanted.cluster_size)
        self._set = SnapshotSet(directory, self.next, wanted.snapshot)

    def close(self) -> None:
        """Flush and close the layers."""
        self._set.close()

    @property
    def geometry(self) -> Geometry:
        """The blocks of the base; the topmost layer says how many."""
        return replace(self.next.geometry, size=self._set.disk.size, optimal_io=OPTIMAL_IO)

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of a layer; the base is only read."""
        writable = not self.options.snapshot
        return Capabilities(
            read_only=not writable,
            flush=writable,
            unmap=writable,
            in_place=False,
            extents=True,
            rotational=self.next.capabilities.rotational,
            unmap_granularity=self._set.manifest.cluster_size if writable else 0,
        )

    @property
    def identity(self) -> str:
        """The name of the set, and of the layer if it is a snapshot."""
        whole = f"snapshot:{self._set.manifest.uuid}"
        return f"{whole}:{self._set.layers.names[0]}" if self.options.snapshot else whole

    @property
    def place(self) -> str:
        """Where the directory is."""
        return str(Path(self.options.path).stat().st_ino)

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the present layers."""
        whole, layers = InlineSet(self._set), self._set.inline
        if self.options.snapshot:
            return replace(layers, read=whole.reader(), write=None)
        parts = BatchedWrite(whole.first_write, whole.next_write, whole.end_writes)
        return replace(layers, read=whole.reader(), write=note_batched(whole.write, parts))

    def read(self, offset: int, views: Views) -> None:
        """Read from the topmost layer that has it."""
        with self._set.gate.together():
            self._set.prepare_to_read()
            self._set.disk.read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to the active layer."""
        with self._set.gate.together():
            self._set.prepare_to_write()
            self._set.disk.write(offset, views)
            if fua:
                self._set.flush()

    def flush(self) -> None:
        """Flush the active layer."""
        if not self.options.snapshot:
            with self._set.gate.together():
                self._set.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Make whole clusters zeroes, which take no storage; parts of them may stay what they were."""
        with self._set.gate.together():
            self._set.prepare_to_write()
            self._set.disk.unmap(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Make it zeroes, which take no storage."""
        with self._set.gate.together():
            self._set.prepare_to_write()
            self._set.disk.write_zeroes(offset, length)
            if fua:
                self._set.flush()

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return the extents of the layers, and those of the base for the rest."""
        with self._set.gate.together():
            return self._set.disk.extents(offset, length)

    def resize(self, size: int) -> None:
        """Give the disk a new size; its snapshots keep theirs.

        Raises:
            OSError: A power cut may leave another active layer, or as the layer's; the size is what it was.
        """
        replace(self.next.geometry, size=size)  # refuses what no disk can have
        with self._set.gate.together():
            self._set.resize(size)

    def actions(self) -> Mapping[str, Action[Any]]:
        """Actions on snapshots; none where this disk is one."""
        if self.options.snapshot:
            return {}
        return {
            "list": Action(
                "list the snapshots, the oldest first", NoArguments, lambda _, __: self.snapshots()
            ),
            "take": Action(
                "make a snapshot of the disk as it is", SnapshotName, lambda of, _: self.take(of.name)
            ),
            "roll_back": Action(
                "make the disk what it was when a snapshot was taken",
                SnapshotName,
                lambda to, progress: self.roll_back(to.name, progress=progress),
                disturbs=True,
            ),
            "delete": Action(
                "delete a snapshot",
                SnapshotName,
                lambda the, progress: self.delete(the.name, progress=progress),
            ),
            "tidy": Action(
                "merge and remove layers that nothing needs",
                NoArguments,
                lambda _, progress: self.tidy(progress=progress),
            ),
        }

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots, the oldest first."""
        return self._set.snapshots()

    def take(self, name: str) -> None:
        """Make a snapshot of the disk as it is now; requests wait for a flush meanwhile.

        After a crash the snapshot is there, as it was when it was taken, or not at all.

        Raises:
            UsageError: The name is taken, or is none.
            OSError: There is no room, or the flush failed; there is no snapshot then.
        """
        self._set.take(name)
        log.info("snapshot %s of %s was taken", name, self.identity)

    def roll_back(self, name: str, *, progress: ReportProgress = quiet) -> None:
        """Return the disk to its content at a snapshot; later writes are lost.

        Nobody must have the disk mounted, and its size may change. All snapshots stay, those
        that are newer too.

        Raises:
            UsageError: There is no such snapshot.
            OSError: There is no room; nothing has changed then.
            FlushError: The disk is rolled back, and a flush of what was written since then has failed.
        """
        self._set.roll_back(name, progress=progress)
        log.info("%s was rolled back to snapshot %s", self.identity, name)

    def delete(self, name: str, *, progress: ReportProgress = quiet) -> None:
        """Delete a snapshot and merge layers that no other one needs, while the disk is in use.

        A layer that is open as a disk of its own stays until `tidy` or the next `delete`.

        Raises:
            UsageError: There is no such snapshot.
            OSError: There is no room to merge; the snapshot is deleted, its layers stay.
            FlushError: Likewise, and data that was written to the disk may be lost.
        """
        self._set.delete(name, progress=progress)
        log.info("snapshot %s of %s was deleted", name, self.identity)

    def tidy(self, *, progress: ReportProgress = quiet) -> None:
        """Merge and remove the layers that nothing needs.

        Raises:
            OSError: There is no room to merge.
        """
        self._set.tidy(progress=progress)
