"""A set of snapshots in its directory: made, opened, and changed while the disk is in use.

Whatever changes the set writes new files first, then the manifest, then removes what is not
needed any more; so a crash leaves the set before or the set after, and at most a file that
nothing knows, which the next one to open the set removes.

This module knows what is done to the set; `manifest` what it consists of,
`merge` how layers become one.
"""

import errno
import logging
import re
import threading
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vscsihba.block import Geometry, Views
from vscsihba.errors import FlushError, HostError, InUseError, UsageError, VscsihbaError
from vscsihba.handlers.actions import ReportProgress, quiet
from vscsihba.handlers.base import Handler, InlineVerbs, batched
from vscsihba.handlers.cow.disk import CowDisk
from vscsihba.handlers.cow.format import Header
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.cow.overlay_file import create_overlay, digest, open_overlay, share, thaw
from vscsihba.handlers.shared.claims import NameClaim
from vscsihba.handlers.shared.durable import sync_directory
from vscsihba.handlers.shared.rwlock import RWLock
from vscsihba.handlers.shared.undo import Undo
from vscsihba.handlers.snapshot import manifest as manifest_
from vscsihba.handlers.snapshot.layers import Layers, layer_path
from vscsihba.handlers.snapshot.manifest import Manifest
from vscsihba.handlers.snapshot.manifest_file import ManifestFile
from vscsihba.handlers.snapshot.merge import tidy

log = logging.getLogger(__name__)

_LEFT = (OSError, MemoryError, VscsihbaError)
"""Failures of removing a layer that nothing needs."""

_LEFT_OVER = re.compile(
    r"(?P<layer>[0-9a-f]{32})\.layer(\.new)?|overlay-[0-9a-f]{32}\.part|\.manifest\.[0-9a-f]{16}"
)
"""Files that only this module makes in the directory, with the layer that they are of."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot.

    Attributes:
        name: Name of the snapshot.
        created: When it was made, in seconds since 1970.
    """

    name: str
    created: float


def _kept(name: str) -> str:
    return f"snapshot {name} is deleted, but its layer is kept"


class SnapshotSet:
    """An open set.

    Args:
        directory: Where it is.
        base: The open base.
        snapshot: The snapshot to open for reading; the disk itself if empty.

    Attributes:
        file: The manifest; inline verbs may be used while its file has the one in force.
        layers: Those that are open.
        inline: Their inline verbs.
        batched: The parts of the inline write.
        gate: Passed by whoever uses the layers; closed while they are exchanged.

    Raises:
        UsageError: There is no such set, or no such snapshot.
        InUseError: Another disk has it.
        HostError: It is damaged, or belongs to another base.
    """

    def __init__(self, directory: Path, base: Handler, snapshot: str) -> None:
        self.directory = directory
        self.base = base
        self.gate = RWLock()
        self.file = ManifestFile(_file(directory))
        self._changing = threading.Lock()
        self._check_base()
        layer = self.manifest.layer_of(snapshot) if snapshot else self.manifest.active
        lineage = self.manifest.lineage(layer)
        with Undo() as opened:
            self.switch(Layers(directory, lineage, base, read_only=bool(snapshot)))
            opened.callback(self._close_layers)
            self._name = self._claim(layer if snapshot else "")
            opened.enter_context(self._name)
            if not self._is_current(snapshot, lineage):  # from now on it cannot change
                raise InUseError(f"{directory} was changed while it was opened", cure="try again")
            if not snapshot:
                if self.manifest.base != base.identity:  # an earlier version has recorded another name
                    self.save(msgspec.structs.replace(self.manifest, base=base.identity))
                if self._try_to_settle():
                    self._remove_strangers()
            self._opened = opened.pop_all()

    @property
    def manifest(self) -> Manifest:
        """Its layers and their order."""
        return self.file.current

    @property
    def disk(self) -> CowDisk:
        """The topmost layer, with everything below it."""
        return self.layers.top

    def close(self) -> None:
        """Flush and close the layers.

        Raises:
            OSError: The flush failed.
        """
        self._opened.close()

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots, the oldest first."""
        snapshots = [SnapshotInfo(name, named.created) for name, named in self.manifest.snapshots.items()]
        return sorted(snapshots, key=lambda info: info.created)

    def take(self, name: str) -> None:
        """Make a snapshot; see `vscsihba.handlers.snapshot.handler.SnapshotHandler.take`."""
        with self._changing:
            while not self._take(name):
                pass

    def _take(self, name: str) -> bool:
        """Make a snapshot; return False if the disk was resized while a layer of its former size was made."""
        with ExitStack() as failing:
            layer, size = manifest_.new_name(), self.disk.size
            changed = self.manifest.taken(name, layer)
            failing.callback(self._remove_layer, layer)
            new = open_overlay(self._make_layer(layer, size), read_only=False)
            failing.callback(new.abandon)
            with self.gate.alone():
                if self.disk.size != size:
                    return False
                self._end_active(changed)
                self.layers.put_on_top(layer, CowDisk(new, self.disk))
                self.switch(self.layers)
            failing.pop_all()
        return True

    def roll_back(self, name: str, *, progress: ReportProgress = quiet) -> None:
        """Go back to a snapshot; see `vscsihba.handlers.snapshot.handler.SnapshotHandler.roll_back`."""
        with self._changing:
            layer = manifest_.new_name()
            changed = self.manifest.rolled_back(name, layer)
            lineage = changed.lineage(layer)
            before = self.layers
            with ExitStack() as failing:
                failing.callback(self._remove_layer, layer)
                self._make_layer(layer, self._size_of(lineage[1]))
                after = Layers(self.directory, lineage, self.base, read_only=False)
                failing.callback(after.abandon)
                with self.gate.alone():
                    self.save(changed)
                    self.switch(after)
                failing.pop_all()
            try:
                before.abandon()
                tidy(self, progress)
            except FlushError:  # later writes may be lost: initiators have to be told
                raise
            except _LEFT as error:  # the disk is what it was, though something is left over
                log.warning("%s: layers that nothing needs are kept: %r", self.directory, error)

    def delete(self, name: str, *, progress: ReportProgress = quiet) -> None:
        """Delete a snapshot; see `vscsihba.handlers.snapshot.handler.SnapshotHandler.delete`."""
        with self._changing:
            self.save(self.manifest.without(name))
            try:
                tidy(self, progress)
            except VscsihbaError as error:
                raise HostError(f"{_kept(name)}: {error.message}", cure=error.cure) from error
            except MemoryError as error:
                raise OSError(errno.ENOMEM, f"{_kept(name)}: no memory") from error
            except OSError as error:
                kind = FlushError if isinstance(error, FlushError) else OSError
                raise kind(error.errno or errno.EIO, f"{_kept(name)}: {error.strerror}") from error

    def tidy(self, *, progress: ReportProgress = quiet) -> None:
        """Merge and remove layers that no snapshot needs; see `SnapshotHandler.tidy`."""
        with self._changing:
            tidy(self, progress)

    def switch(self, layers: Layers) -> None:
        """Use these layers from now on; to be called with the gate closed."""
        self.layers = layers
        self.inline: InlineVerbs = layers.inline
        self.batched = batched(self.inline.write or _refuse)

    def save(self, changed: Manifest) -> None:
        """Put a new manifest on stable storage, then in force.

        Raises:
            OSError: That failed; the one before counts.
        """
        self.file.save(changed)

    def prepare_to_read(self) -> None:
        """Make sure that the next process reads the same; to be called inside the gate.

        Raises:
            OSError, MemoryError: A roll-back that could not be saved may be in the manifest.
        """
        if not self.file.reads_alike:
            self.file.put_back()

    def prepare_to_write(self) -> None:
        """Make sure that the next process writes to the same layer; to be called inside the gate.

        Raises:
            OSError, MemoryError: A manifest that could not be saved may be there.
        """
        self.file.put_back()

    def flush(self) -> None:
        """Flush the active layer, and the manifest that names it; to be called inside the gate.

        Raises:
            OSError, MemoryError: That failed.
        """
        self.file.settle()
        self.disk.overlay.flush()

    def resize(self, size: int) -> None:
        """Give the active layer a new size, which no power cut takes back; to be called inside the gate.

        Raises:
            OSError, MemoryError: That failed.
        """
        self.file.settle()
        self.disk.resize(size)

    def _end_active(self, changed: Manifest) -> None:
        """End writing to the active layer, and record the new active one on stable storage.

        Raises:
            OSError: That failed; the layer is still active.
        """
        overlay = self.disk.overlay
        overlay.end()
        with ExitStack() as failing:
            failing.callback(self._go_on_with, overlay)
            share(overlay)
            self.save(changed)
            failing.pop_all()

    def _go_on_with(self, overlay: Overlay) -> None:
        """Keep the active layer for this disk alone; it begins anew with the next cluster that it stores."""
        try:
            thaw(overlay)
        except HostError as error:
            log.warning("%s: the active layer can be read by others: %s", self.directory, error)

    def _remove_layer(self, name: str) -> None:
        """Remove the file of a layer that was not put to use, unless a crash may leave a manifest with it."""
        if self._try_to_settle() and name not in self.manifest.layers:
            with suppress(OSError):  # a file that stays is removed when the set is opened
                layer_path(self.directory, name).unlink(missing_ok=True)

    def _try_to_settle(self) -> bool:
        """Put the manifest in force on stable storage; return False if that has to be tried again."""
        try:
            self.file.settle()
        except (OSError, MemoryError) as error:
            log.warning("%s: the names in it are not on stable storage yet: %s", self.directory, error)
            return False
        return True

    def _close_layers(self) -> None:
        self.layers.close()

    def _claim(self, layer: str) -> NameClaim:
        """Claim the UUID of the set, or of a snapshot in it, for this directory."""
        taken = InUseError(
            f"{self.directory} is a copy of a set of snapshots that is in use, with the same uuid",
            cure=f'give it its own, while no disk uses it: "vscsihba snapshot renew-uuid {self.directory}"',
        )
        where = self.directory.stat()
        name = f"snapshot:{self.manifest.uuid}:{layer}"
        return NameClaim(name, shared=bool(layer), taken=taken, place=f"{where.st_dev}:{where.st_ino}")

    def _make_layer(self, name: str, size: int) -> str:
        """Create an empty layer, and return its path."""
        path = str(layer_path(self.directory, name))
        create_overlay(path, _header(self.manifest, size))
        return path

    def _size_of(self, layer: str) -> int:
        """Return the capacity of the disk with a layer on top."""
        overlay = open_overlay(str(layer_path(self.directory, layer)), read_only=True)
        overlay.close()
        return overlay.header.size

    def _check_base(self) -> None:
        recorded, base = self.manifest, self.base
        known = base.is_known_as(recorded.base)
        if not known or (recorded.base_size, recorded.base_digest) != (base.geometry.size, digest(base)):
            what = "has changed" if known else f"is not {recorded.base}"
            raise HostError(f"{self.directory}: the base of the snapshots {what}", cure="bring it back")

    def _is_current(self, snapshot: str, lineage: list[str]) -> bool:
        """Return whether the manifest says the same now that the layers are locked."""
        now = manifest_.load(_file(self.directory))
        if not snapshot:
            return now == self.manifest
        return snapshot in now.snapshots and now.lineage(now.snapshots[snapshot].layer) == lineage

    def _remove_strangers(self) -> None:
        """Remove leftovers of a crash: layers that the manifest does not know."""
        for path in self.directory.iterdir():
            left_over = _LEFT_OVER.fullmatch(path.name)
            if left_over is not None and left_over["layer"] not in self.manifest.layers:
                log.info("%s is removed: nothing needs it", path)
                with suppress(OSError):  # the next one to open the set tries again
                    path.unlink()


def _refuse(_views: Views, _offset: int, _flags: int) -> int:
    """Stand in for the inline write of layers that have none."""
    raise BlockingIOError


def check_set(directory: Path, snapshot: str, *, create: bool) -> None:
    """Check that a set is there, and the snapshot in it, or room to create a set.

    Raises:
        UsageError, HostError: As `SnapshotSet`.
    """
    if not create or _file(directory).exists():
        manifest = manifest_.load(_file(directory))
        if snapshot:
            manifest.layer_of(snapshot)
    elif not directory.parent.is_dir():
        raise UsageError(f"{directory}: there is no directory {directory.parent}", cure="create it first")
    elif directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", cure="choose another one")


def create_set(directory: Path, base: Handler, shape: Geometry, cluster_size: int) -> None:
    """Create an empty set, unless there is one.

    Raises:
        OSError: There is no room.
    """
    with Undo() as failing:
        if not directory.exists():
            directory.mkdir(mode=0o700)
            failing.callback(_remove_directory, directory)
        elif _file(directory).exists():
            sync_directory(directory)  # whoever has made it may have failed to do so
            failing.pop_all()
            return
        sync_directory(directory.parent)
        layer = manifest_.new_name()
        new = Manifest(
            base=base.identity,
            base_size=shape.size,
            base_digest=digest(base),
            cluster_size=cluster_size,
            layers={layer: manifest_.BASE},
            active=layer,
        )
        create_overlay(str(layer_path(directory, layer)), _header(new, shape.size))
        failing.callback(_remove_set, directory, layer)
        new.save(_file(directory))
        failing.pop_all()


def renew_uuid(directory: Path) -> str:
    """Give a set, which is a copy of another one, a uuid of its own, and return it.

    Its disk and its snapshots have other serial numbers and NAA names from then on.

    Raises:
        UsageError, HostError: There is no such set, or a disk uses it.
        OSError: The manifest cannot be replaced.
    """
    manifest = manifest_.load(_file(directory))
    active = open_overlay(str(layer_path(directory, manifest.active)), read_only=False)
    try:
        changed = msgspec.structs.replace(manifest, uuid=str(uuid.uuid4()))
        changed.save(_file(directory))
    finally:
        active.close()
    return changed.uuid


def _remove_set(directory: Path, layer: str) -> None:
    """Remove the files of a set, so that no crash leaves the manifest alone.

    Raises:
        OSError: That failed; what is left is an empty set, or files that nothing needs.
    """
    _file(directory).unlink(missing_ok=True)
    sync_directory(directory)
    layer_path(directory, layer).unlink()


def _remove_directory(directory: Path) -> None:
    with suppress(OSError):  # somebody has put something there
        directory.rmdir()


def _header(manifest: Manifest, size: int) -> Header:
    """Return the header of a new layer of a set."""
    return Header(
        size=size,
        cluster_size=manifest.cluster_size,
        base=f"snapshot:{manifest.uuid}",
        base_size=manifest.base_size,
        base_digest=manifest.base_digest,
    )


def _file(directory: Path) -> Path:
    return directory / "manifest"
