"""Block devices under a name of the kernel, such as /dev/sdb: whether each is the device that was applied.

After a reboot such a name may belong to another disk. The identity of the device is recorded when a document
is applied, and a LUN with another device is refused later. A link, such as those in /dev/disk/by-id, always
leads to the same device and is not recorded. Legs of a mirror are identified by their marks.
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
    """Refuse a stack with a device that is not the one that was applied.

    Args:
        known: The recorded identities; a device without one is not checked.
        stack: The stack in the document.

    Raises:
        HostError: It has another device.
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
    """Return the recorded identities, updated with the present ones of the devices of some stacks."""
    now = {path: _identity(path) for stack in stacks for path in _device_paths(stack)}
    kept = {path: identity for path, identity in known.items() if path not in now}
    return {**kept, **{path: identity for path, identity in now.items() if identity is not None}}


def _device_paths(stack: Document) -> Iterator[str]:
    """Yield the paths of a stack that are block devices under a name of the kernel."""
    return (path for path in _named_paths(stack) if _is_device(path) and os.path.realpath(path) == path)


def _named_paths(stack: Document) -> list[str]:
    """Return the paths in which a stack stores data; none if the stack is not valid."""
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
    except OSError:  # its handler reports that it is missing
        return False


def _identity(path: str) -> str | None:
    try:
        return block_identity(Path(path).stat().st_rdev)
    except OSError:
        return None
