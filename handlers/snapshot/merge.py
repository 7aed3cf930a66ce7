"""Merging layers: a layer that no snapshot needs goes into the one above, while the disk is in use.

The layer above takes over each cluster that it does not have itself, so what it reads as
never changes, and this can be interrupted anywhere and done again. A layer that is open as a
disk of its own is locked, and left for another time.
"""

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from vscsihba.errors import InUseError
from vscsihba.handlers.actions import ReportProgress
from vscsihba.handlers.cow.disk import BelowHandler, CowDisk
from vscsihba.handlers.cow.format import BASE
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.cow.overlay_file import freeze, open_overlay, thaw
from vscsihba.handlers.snapshot.layers import layer_path

if TYPE_CHECKING:
    from vscsihba.handlers.snapshot.snapshot_set import SnapshotSet

log = logging.getLogger(__name__)


def tidy(whole: "SnapshotSet", progress: ReportProgress) -> None:
    """Remove or merge every layer that is not needed, but for those that are open elsewhere.

    Args:
        whole: The set.
        progress: Told the clusters of a layer that are done, and how many there are.

    Raises:
        OSError: There is no room for that.
    """
    busy: set[str] = set()
    while todo := [item for item in whole.manifest.unneeded() if item[0] not in busy]:
        layer, above = todo[0]
        try:
            if above is None:
                whole.save(whole.manifest.without_layer(layer))
            elif above in whole.layers.names:
                _merge_here(whole, layer, above, progress)
            else:
                _merge_elsewhere(whole, layer, above, progress)
        except InUseError as error:
            log.info("layer %s is kept: %s", layer, error)
            busy.add(layer)
        else:
            with suppress(OSError):  # the next one to open the set removes it
                layer_path(whole.directory, layer).unlink()


def _merge_here(whole: "SnapshotSet", layer: str, above: str, progress: ReportProgress) -> None:
    """Merge a layer into the one above it, both of them part of the disk."""
    disk, below = whole.layers.disk(above), whole.layers.disk(layer).overlay
    is_active = above == whole.manifest.active
    if not is_active:
        thaw(disk.overlay)
    try:
        _pull(disk, below, progress)
    finally:
        if not is_active:
            freeze(disk.overlay)
    whole.save(whole.manifest.without_layer(layer))
    with whole.gate.alone():
        out = whole.layers.take_out(layer)
        whole.switch(whole.layers)
    with suppress(OSError):  # nothing was written to it
        out.close()


def _merge_elsewhere(whole: "SnapshotSet", layer: str, above: str, progress: ReportProgress) -> None:
    """Merge a layer into the one above it, on another branch."""
    overlay = open_overlay(str(layer_path(whole.directory, above)), read_only=False)
    try:
        below = open_overlay(str(layer_path(whole.directory, layer)), read_only=True)
        try:
            _pull(CowDisk(overlay, BelowHandler(whole.base)), below, progress)
        finally:
            below.close()
    finally:
        overlay.close()
    whole.save(whole.manifest.without_layer(layer))


def _pull(disk: CowDisk, below: Overlay, progress: ReportProgress) -> None:
    """Copy the clusters that a disk still needs from the overlay directly below."""
    count = min(below.header.clusters, disk.overlay.header.clusters)
    size = below.cluster_size
    for state, run in below.runs(0, min(count * size, below.header.size)):
        for number in range(run.offset // size, -(-run.end // size)) if state != BASE else ():
            disk.pull(below, number)
            progress(number + 1, count)
    disk.overlay.flush()
