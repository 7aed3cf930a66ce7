r"""The manifest of a set of snapshots: its layers, their order, and their names.

Each layer is an overlay that lies on another one or on the base. The active layer takes what
is written; all others never change. A snapshot is a name for a layer: for what the disk is with
that one on top. Layers form a tree, since rolling back begins another branch.

    base -- 1 (monday) -- 2 (tuesday) -- 3
                  \
                   4 (active)

A layer that has no name, is not active and has at most one layer on it is not needed: it is
removed, or merged into that one. This module thinks about that; files are not its business.
"""

import re
import time
import uuid
import zlib
from pathlib import Path

import msgspec

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.shared.durable import replace_file

_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BASE = ""
"""What the lowest layers lie on."""


class SnapshotEntry(msgspec.Struct, frozen=True):
    """A snapshot.

    Attributes:
        layer: The topmost of its layers.
        created: When it was made, in seconds since 1970.
    """

    layer: str
    created: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A set of snapshots.

    Attributes:
        version: Of this format.
        uuid: Names the set.
        base: Identity of the base.
        base_size: Its size in bytes.
        base_digest: Hash of samples of its content.
        cluster_size: Of every layer, in bytes.
        layers: The layer below each layer.
        active: The layer that takes what is written.
        snapshots: By name.
    """

    version: int = _VERSION
    uuid: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    base: str
    base_size: int
    base_digest: str
    cluster_size: int
    layers: dict[str, str]
    active: str
    snapshots: dict[str, SnapshotEntry] = {}

    def lineage(self, layer: str) -> list[str]:
        """Return a layer and those below it, from the top down."""
        layers = []
        while layer != BASE:
            layers.append(layer)
            layer = self.layers[layer]
        return layers

    def layer_of(self, name: str) -> str:
        """Return the layer of a snapshot.

        Raises:
            UsageError: There is none of that name.
        """
        if name not in self.snapshots:
            known = ", ".join(sorted(self.snapshots)) or "none"
            raise UsageError(f"there is no snapshot {name!r}", cure=f"there are: {known}")
        return self.snapshots[name].layer

    def taken(self, name: str, layer: str) -> "Manifest":
        """Return the set with a snapshot of the present state, and a new active layer.

        Raises:
            UsageError: The name is taken, or is none.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a valid snapshot name",
                cure="use letters, digits, dots, dashes and underscores",
            )
        if name in self.snapshots:
            raise UsageError(
                f"there is a snapshot {name!r} already", cure="delete it, or choose another name"
            )
        return msgspec.structs.replace(
            self,
            snapshots={**self.snapshots, name: SnapshotEntry(self.active, time.time())},
            layers={**self.layers, layer: self.active},
            active=layer,
        )

    def rolled_back(self, name: str, layer: str) -> "Manifest":
        """Return the set with a new active layer on that of a snapshot."""
        return msgspec.structs.replace(self, layers={**self.layers, layer: self.layer_of(name)}, active=layer)

    def without(self, name: str) -> "Manifest":
        """Return the set without a snapshot; its layers are still there.

        Raises:
            UsageError: There is none of that name.
        """
        self.layer_of(name)
        kept = {other: named for other, named in self.snapshots.items() if other != name}
        return msgspec.structs.replace(self, snapshots=kept)

    def without_layer(self, layer: str) -> "Manifest":
        """Return the set without a layer; the layers on it now lie on the one below it."""
        below = self.layers[layer]
        kept = {
            other: below if under == layer else under
            for other, under in self.layers.items()
            if other != layer
        }
        return msgspec.structs.replace(self, layers=kept)

    def unneeded(self) -> list[tuple[str, str | None]]:
        """Return the layers that are not needed, each with the one that it has to be merged into."""
        named = {snapshot.layer for snapshot in self.snapshots.values()} | {self.active}
        unneeded: list[tuple[str, str | None]] = []
        for layer in self.layers:
            above = [other for other, under in self.layers.items() if under == layer]
            if layer not in named and len(above) < 2:
                unneeded.append((layer, above[0] if above else None))
        return unneeded

    def save(self, path: Path) -> None:
        """Put the manifest on stable storage, in place of the one before.

        Raises:
            OSError: The system refused; the one before is still there.
        """
        text = msgspec.json.encode(self)
        replace_file(path, b"%s\n%08x\n" % (text, zlib.crc32(text)))


def load(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        UsageError: There is none.
        HostError: It is damaged, or of a version that is not known here.
    """
    try:
        text, _, rest = path.read_bytes().partition(b"\n")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such set of snapshots", cure='make it with "create": true') from error
    if rest.strip() != b"%08x" % zlib.crc32(text):
        raise HostError(f"{path} is damaged", cure="restore it from a copy")
    fields = msgspec.json.decode(text)
    if fields.get("version") != _VERSION:
        raise HostError(
            f"{path} is of version {fields.get('version')}, known is {_VERSION}",
            cure="open it with a newer release",
        )
    return msgspec.convert(fields, Manifest)


def new_name() -> str:
    """Return a name for a layer that no other one has."""
    return uuid.uuid4().hex
