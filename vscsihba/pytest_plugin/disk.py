"""A disk for a test: a handler stack as a LUN, with faults that the test switches on and off.

A fault is a filter on top of the stack with a trigger: a file that exists while the fault is on. Knows
documents and the verbs of the HBA; the handlers know what a trigger does.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from vscsihba.capture.recording import ALL, Recording, record
from vscsihba.errors import UsageError
from vscsihba.handlers.stack import Document
from vscsihba.hba import VirtualHba

DEFAULT_SIZE = "64MiB"
BLKFLSBUF = 0x1261
"""_IO(0x12, 97) of linux/fs.h: write back and drop the kernel's cache of a block device."""

Layer = Mapping[str, object]
"""A filter of a document, without its ``next``."""


class Disk:
    """A disk of the test's HBA.

    Args:
        hba: The HBA, entered.
        number: Number of an existing LUN.
        triggers: The files that switch faults on, by the names of the faults.

    Attributes:
        path: The block device, such as ``/dev/sda``.
        hba, number: Its HBA and LUN.
    """

    def __init__(self, hba: VirtualHba, number: int, triggers: Mapping[str, Path]) -> None:
        self.hba, self.number = hba, number
        self.path = hba.wait_for_disk(number)
        self._triggers = triggers

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Switch a fault on while the context is entered.

        The kernel's cache is written back and dropped first, so that the next read meets the fault.

        Raises:
            UsageError: The disk has no such fault.
        """
        if name not in self._triggers:
            known = ", ".join(self._triggers) or "none"
            raise UsageError(f"the disk has no fault {name!r}", cure=f"its faults are: {known}")
        self.forget()
        self._triggers[name].touch()
        try:
            yield
        finally:
            self._triggers[name].unlink(missing_ok=True)

    def forget(self) -> None:
        """Write back and drop the kernel's cache of the disk.

        Raises:
            OSError: It cannot be written back.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, BLKFLSBUF)
        finally:
            os.close(descriptor)

    @contextmanager
    def capture(self, snaplen: int = ALL) -> Iterator[Recording]:
        """Record the SCSI commands of the disk while the context is entered.

        Args:
            snaplen: Bytes of data of each command that are kept, at most.
        """
        with record(self.hba.taps, self.hba.id, frozenset({self.number}), snaplen) as recording:
            yield recording

    def remove(self) -> None:
        """Remove the disk, and return when Linux has released it.

        Raises:
            HostError: Linux has not released it.
        """
        self.hba.remove_lun(self.number).wait_until_gone()


class MakeDisk(Protocol):
    """The fixture `vscsi_disk`: creates disks of the test's HBA."""

    def __call__(
        self,
        size: int | str | None = None,
        *,
        source: Document | None = None,
        layers: Sequence[Layer] = (),
        faults: Mapping[str, Layer] | None = None,
    ) -> Disk:
        """Create a disk, and return when Linux has it.

        Args:
            size: Size of a disk in memory: bytes, or text such as ``"64MiB"``, which is the default.
            source: The storage instead of memory: a path, or the document of a stack.
            layers: Filters above it, the topmost first.
            faults: Filters on top, by the names that switch them on: handlers that have a ``trigger``,
                such as ``error`` and ``delay``.

        Raises:
            UsageError: The arguments are not valid: there is no such handler or option.
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
        UsageError: Both size and source are given, or a layer has its own ``next`` or ``trigger``.
    """
    if size is not None and source is not None:
        raise UsageError("a disk has a size or a source, not both", cure="leave one out")
    built: Document = source if source is not None else {"handler": "memory", "size": size or DEFAULT_SIZE}
    for layer in reversed(layers):
        built = {**_checked(layer, "next"), "next": built}
    for name, layer in faults.items():
        built = {**_checked(layer, "next", "trigger"), "trigger": str(triggers[name]), "next": built}
    return built


def _checked(layer: Layer, *reserved: str) -> Layer:
    for name in reserved:
        if name in layer:
            raise UsageError(f"a layer with {name!r}: {layer}", cure="leave it out, it is set for you")
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
    """Create a disk of an HBA, with trigger files in `folder`; see `MakeDisk`."""
    number = max(hba.luns, default=-1) + 1
    faults = faults or {}
    for name in faults:
        if not name.isidentifier():
            raise UsageError(f"{name!r} is not a valid name of a fault", cure="use letters, digits and _")
    triggers = {name: folder / f"lun{number}-{name}" for name in faults}
    hba.add_lun(number, handler=document(size, source, layers, faults, triggers))
    return Disk(hba, number, triggers)
