"""A set of snapshots in its directory: made, opened, and changed while the disk is in use.

Whatever changes the set writes new files first, then the manifest, then removes what is not
needed any more; so a crash leaves the set before or the set after, and at most a file that
nothing knows, which the next one to open the set removes.

This module knows what is done to the set; `snapshot_manifest` what it consists of,
`snapshot_merge` how layers become one.
"""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vscsihba.block import Geometry
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers import snapshot_manifest as manifest_
from vscsihba.handlers.actions import Progress, quiet
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cow_disk import CowDisk
from vscsihba.handlers.cow_format import Header
from vscsihba.handlers.durable import sync_directory
from vscsihba.handlers.gate import Gate
from vscsihba.handlers.overlay import Overlay
from vscsihba.handlers.overlay_file import create_overlay, digest, freeze, open_overlay
from vscsihba.handlers.snapshot_layers import Layers, layer_path
from vscsihba.handlers.snapshot_manifest import Manifest
from vscsihba.handlers.snapshot_merge import tidy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot.

    Attributes:
        name: What it is called.
        created: When it was made, in seconds since 1970.
    """

    name: str
    created: float


class SnapshotSet:
    """An open set.

    Args:
        directory: Where it is.
        base: The open base.
        snapshot: The snapshot to open for reading; the disk itself if empty.

    Attributes:
        manifest: What it consists of.
        layers: Those that are open.
        inline: Their inline verbs.
        gate: Passed by whoever uses the layers; closed while they are exchanged.

    Raises:
        UsageError: There is no such set, or no such snapshot.
        InUseError: Another disk has it.
        HostError: It is damaged, or belongs to another base.
    """

    def __init__(self, directory: Path, base: Handler, snapshot: str) -> None:
        self.directory = directory
        self.base = base
        self.gate = Gate()
        self.manifest = manifest_.load(_file(directory))
        self._changing = threading.Lock()
        self._demand_base()
        layer = self.manifest.layer_of(snapshot) if snapshot else self.manifest.active
        lineage = self.manifest.lineage(layer)
        self.switch(Layers(directory, lineage, base, read_only=bool(snapshot)))
        if not snapshot:
            if self.manifest.base != base.identity:  # an earlier version has recorded another name
                self.save(msgspec.structs.replace(self.manifest, base=base.identity))
            self._remove_strangers()

    @property
    def disk(self) -> CowDisk:
        """The topmost layer, with everything below it."""
        return self.layers.top

    def close(self) -> None:
        """Flush and let go of the layers.

        Raises:
            OSError: The flush failed.
        """
        self.layers.close()

    def snapshots(self) -> list[SnapshotInfo]:
        """Return what snapshots there are, the oldest first."""
        found = [SnapshotInfo(name, named.created) for name, named in self.manifest.snapshots.items()]
        return sorted(found, key=lambda info: info.created)

    def take(self, name: str) -> None:
        """Make a snapshot; see `vscsihba.handlers.snapshot.SnapshotHandler.take`."""
        with self._changing:
            layer = manifest_.new_name()
            changed = self.manifest.taken(name, layer)
            new = self._new_layer(layer, self.disk.size)
            try:
                with self.gate.alone():
                    self._end_active(changed)
                    self.layers.put_on_top(layer, CowDisk(new, self.disk))
                    self.switch(self.layers)
            except BaseException:
                if self.manifest is not changed:
                    new.close()
                    layer_path(self.directory, layer).unlink()
                raise

    def roll_back(self, name: str, *, progress: Progress = quiet) -> None:
        """Go back to a snapshot; see `vscsihba.handlers.snapshot.SnapshotHandler.roll_back`."""
        with self._changing:
            layer = manifest_.new_name()
            changed = self.manifest.rolled_back(name, layer)
            lineage = changed.lineage(layer)
            self._new_layer(layer, self._size_of(lineage[1])).close()
            after, before = Layers(self.directory, lineage, self.base, read_only=False), self.layers
            with self.gate.alone():
                self.save(changed)
                self.switch(after)
            with suppress(OSError):  # what could not be flushed is given up anyway
                before.close()
            tidy(self, progress)

    def delete(self, name: str, *, progress: Progress = quiet) -> None:
        """Delete a snapshot; see `vscsihba.handlers.snapshot.SnapshotHandler.delete`."""
        with self._changing:
            self.save(self.manifest.without(name))
            tidy(self, progress)

    def tidy(self, *, progress: Progress = quiet) -> None:
        """Merge and remove what nothing needs; see `vscsihba.handlers.snapshot.SnapshotHandler.tidy`."""
        with self._changing:
            tidy(self, progress)

    def switch(self, layers: Layers) -> None:
        """Use these layers from now on; to be called with the gate closed."""
        self.layers = layers
        self.inline: InlineVerbs = layers.inline

    def save(self, changed: Manifest) -> None:
        """Put a new manifest on stable storage, and go by it.

        Raises:
            OSError: That failed; the one before counts.
        """
        try:
            changed.save(_file(self.directory))
        except OSError:
            # It may be there, and only the directory could not be synced.
            if manifest_.load(_file(self.directory)) != changed:
                raise
        self.manifest = changed

    def _end_active(self, changed: Manifest) -> None:
        """Be done with the active layer, and put on stable storage that another one is.

        Raises:
            OSError: That failed; the layer is still active.
        """
        overlay = self.disk.overlay
        overlay.end()
        try:
            self.save(changed)
        except BaseException:
            overlay.begin()
            raise
        freeze(overlay)

    def _new_layer(self, name: str, size: int) -> Overlay:
        """Make a layer in which nothing is stored, and open it."""
        path = str(layer_path(self.directory, name))
        create_overlay(path, _header(self.manifest, size))
        return open_overlay(path, read_only=False)

    def _size_of(self, layer: str) -> int:
        """Return the capacity of the disk that a layer is the top of."""
        overlay = open_overlay(str(layer_path(self.directory, layer)), read_only=True)
        overlay.close()
        return overlay.header.size

    def _demand_base(self) -> None:
        found, base = self.manifest, self.base
        known = base.is_known_as(found.base)
        if not known or (found.base_size, found.base_digest) != (base.geometry.size, digest(base)):
            what = "has changed" if known else f"is not {found.base}"
            raise HostError(f"{self.directory}: the base of the snapshots {what}", cure="bring it back")

    def _remove_strangers(self) -> None:
        """Remove what a crash left behind: layers that the manifest does not know."""
        known = {layer_path(self.directory, layer) for layer in self.manifest.layers}
        for path in self.directory.glob("*.layer*"):
            if path not in known:
                log.info("%s is removed: nothing needs it", path)
                path.unlink()


def check_set(directory: Path, snapshot: str, *, create: bool) -> None:
    """Look whether a set is there, and a snapshot in it, or room to make a set.

    Raises:
        UsageError, HostError: As `SnapshotSet`.
    """
    if not create or _file(directory).exists():
        found = manifest_.load(_file(directory))
        if snapshot:
            found.layer_of(snapshot)
    elif not directory.parent.is_dir():
        raise UsageError(f"{directory}: there is no directory {directory.parent}", cure="make it first")
    elif directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is no directory", cure="choose another one")


def create_set(directory: Path, base: Handler, shape: Geometry, cluster_size: int) -> None:
    """Make a set with nothing in it, unless there is one.

    Raises:
        OSError: There is no room.
    """
    if _file(directory).exists():
        return
    directory.mkdir(mode=0o700, exist_ok=True)
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
    new.save(_file(directory))


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
