"""Block devices that are named by the kernel's name of today, such as /dev/sdb, and the media found there.

After a restart of the machine such a name may lead to another disk. The identity of the medium is recorded
when a document is applied, and a LUN whose device is another one later is refused. A link, such as those in
/dev/disk/by-id, always leads to the same device and is not recorded. Legs of a mirror are known by their
marks.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from vscsihba.config.stacks import Layer, canonical, layers_of
from vscsihba.daemon.backing_files import backing_files
from vscsihba.errors import HostError, VscsihbaError
from vscsihba.handlers.mirror.handler import MirrorHandler
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.shared.block_identity import block_identity
from vscsihba.handlers.stack import Document

Devices = Mapping[str, str]
"""The identity of each device, by its path."""

_UNNAMED: Final = "a device without a name of its own"


def check_devices(known: Devices, stack: Document) -> None:
    """Refuse a stack if one of its devices is another one than when it was applied.

    Args:
        known: The recorded identities; a device without one is not checked.
        stack: As in a document.

    Raises:
        HostError: A device is another one.
    """
    for path in _device_paths(stack):
        identity = _identity(path)
        if path in known and identity != known[path]:
            raise HostError(
                f"{path} is another device than when it was applied: "
                f"{identity or _UNNAMED}, not {known[path]}",
                cure="attach that one again, or name it by its link in /dev/disk/by-id; "
                'to accept the one that is there, "vscsihba show | vscsihba apply -"',
            )


def accepted(known: Devices, stacks: Iterable[Document]) -> Devices:
    """Return the recorded identities with those that the devices of some stacks have now."""
    now = {path: _identity(path) for stack in stacks for path in _device_paths(stack)}
    kept = {path: identity for path, identity in known.items() if path not in now}
    return {**kept, **{path: identity for path, identity in now.items() if identity is not None}}


def _device_paths(stack: Document) -> Iterator[str]:
    """Yield the paths of a stack that are block devices now, under the kernel's own names."""
    return (path for path in _named_paths(stack) if _is_device(path) and os.path.realpath(path) == path)


def _named_paths(stack: Document) -> list[str]:
    """Return the paths in which a stack stores data; none of a stack that cannot be read."""
    registry = Registry()
    try:
        layers = list(layers_of(canonical(stack, registry), registry, ""))
    except VscsihbaError:
        return []
    marked = tuple(f"{layer.place}.legs" for layer in layers if issubclass(layer.kind, MirrorHandler))
    return [str(file.path) for file in backing_files(_outside(layers, marked))]


def _outside(layers: list[Layer], marked: tuple[str, ...]) -> Iterator[Layer]:
    return (layer for layer in layers if not layer.place.startswith(marked))


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:  # its handler says that it is missing
        return False


def _identity(path: str) -> str | None:
    try:
        return block_identity(Path(path).stat().st_rdev)
    except OSError:
        return None
