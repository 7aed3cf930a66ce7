"""A disk for a test: a stack of handlers as a LUN, with faults that the test switches on and off.

A fault is a layer on top of the stack with a trigger: a file that exists while the fault is on. Knows
documents and the HBA's verbs; what a handler does with its trigger is the handler's business.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from vscsihba.errors import UsageError
from vscsihba.handlers.stack import Document
from vscsihba.hba import VirtualHba

DEFAULT_SIZE = "64MiB"
BLKFLSBUF = 0x1261
"""_IO(0x12, 97) of linux/fs.h: write out and forget what the kernel has cached of a block device."""

Layer = Mapping[str, object]
"""A filter as in a document, but for its ``next``."""


class Disk:
    """A disk of a test's HBA.

    Args:
        hba: Entered.
        number: Of its LUN, which is there.
        triggers: The files that switch its faults on, by the faults' names.

    Attributes:
        path: The block device, such as ``/dev/sda``.
        hba, number: Where it is.
    """

    def __init__(self, hba: VirtualHba, number: int, triggers: Mapping[str, Path]) -> None:
        self.hba, self.number = hba, number
        self.path = hba.wait_for_disk(number)
        self._triggers = triggers

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Switch a fault on while the context is entered.

        What the kernel has cached is written and forgotten before, so that the next read meets it.

        Raises:
            UsageError: The disk was made without it.
        """
        if name not in self._triggers:
            known = ", ".join(self._triggers) or "none"
            raise UsageError(f"the disk has no fault {name!r}", cure=f"it was made with: {known}")
        self.forget()
        self._triggers[name].touch()
        try:
            yield
        finally:
            self._triggers[name].unlink(missing_ok=True)

    def forget(self) -> None:
        """Let the kernel write out and forget what it has cached of the disk.

        Raises:
            OSError: It cannot be written.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, BLKFLSBUF)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Pull the disk out, and return when Linux has let go of it.

        Raises:
            HostError: Linux did not let go.
        """
        self.hba.remove_lun(self.number).wait_until_gone()


class MakeDisk(Protocol):
    """The fixture `vscsi_disk`: makes disks of the test's HBA."""

    def __call__(
        self,
        size: int | str | None = None,
        *,
        source: Document | None = None,
        layers: Sequence[Layer] = (),
        faults: Mapping[str, Layer] | None = None,
    ) -> Disk:
        """Make a disk, and return when Linux has it.

        Args:
            size: Of a disk in memory: bytes, or text such as ``"64MiB"``, which is the default.
            source: What is at the bottom in its place: a path, or a document of a stack.
            layers: Filters on it, the topmost first.
            faults: More filters, on top, each with a name to switch it on by: handlers that have a
                ``trigger``, such as ``error`` and ``delay``.

        Raises:
            UsageError: It cannot be meant; there is no such handler or option.
            HostError: The kernel refuses.
            OSError: The source cannot be opened.
        """


def document(
    size: int | str | None,
    source: Document | None,
    layers: Sequence[Layer],
    faults: Mapping[str, Layer],
    triggers: Mapping[str, Path],
) -> Document:
    """Return the document of a disk; the arguments are those of `MakeDisk`.

    Raises:
        UsageError: Size and source are given, or a layer brings its own ``next`` or ``trigger``.
    """
    if size is not None and source is not None:
        raise UsageError("a disk has a size or a source", cure="leave one out")
    built: Document = source if source is not None else {"handler": "memory", "size": size or DEFAULT_SIZE}
    for layer in reversed(layers):
        built = {**_bare(layer, "next"), "next": built}
    for name, layer in faults.items():
        built = {**_bare(layer, "next", "trigger"), "trigger": str(triggers[name]), "next": built}
    return built


def _bare(layer: Layer, *ours: str) -> Layer:
    for name in ours:
        if name in layer:
            raise UsageError(f"a layer with {name!r}: {layer}", cure="leave that out, it is made for you")
    return layer


def make_disk(
    hba: VirtualHba,
    folder: Path,
    size: int | str | None = None,
    *,
    source: Document | None = None,
    layers: Sequence[Layer] = (),
    faults: Mapping[str, Layer] | None = None,
) -> Disk:
    """Make a disk of an HBA; the files that switch its faults on go into `folder`. See `MakeDisk`."""
    number = max(hba.luns, default=-1) + 1
    faults = faults or {}
    for name in faults:
        if not name.isidentifier():
            raise UsageError(f"fault {name!r} has no proper name", cure="use letters, digits and _")
    triggers = {name: folder / f"lun{number}-{name}" for name in faults}
    hba.add_lun(number, handler=document(size, source, layers, faults, triggers))
    return Disk(hba, number, triggers)
