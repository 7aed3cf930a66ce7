"""A LUN as the caller sees it: its geometry, and whether it has become a disk of Linux.

Knows its port, not how it is served.
"""

from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from time import monotonic

from vscsihba import scsi
from vscsihba.block import Geometry
from vscsihba.errors import HostError
from vscsihba.hba.port import Port


class Lun:
    """A logical unit of a `VirtualHba`.

    Attributes:
        number: Its number on the HBA.
        geometry: Capacity and block lengths, in bytes.
        unit: The logical unit that answers: all commands of a handler's LUN, or those tasks of a raw LUN
            that you give to `Task.answer_as`.
        linked: Done when Linux has scanned the LUN; has the error if that failed.
        gone: Done when the LUN is removed; has the error if the kernel refused a step.
    """

    def __init__(self, number: int, geometry: Geometry, unit: scsi.LogicalUnit, port: Port) -> None:
        self.number = number
        self.geometry = geometry
        self.unit = unit
        self.linked: Future[None] = Future()
        self.gone: Future[None] = Future()
        self._port = port

    @property
    def device(self) -> Path | None:
        """The disk, such as ``/dev/sda``; None while Linux has none. Does not wait."""
        if self.gone.done() or not self.linked.done() or self.linked.exception() is not None:
            return None
        try:
            return self._port.disk(self.number, 0)
        except HostError:
            return None

    def wait_for_disk(self, timeout: float = 60.0) -> Path:
        """Return the disk, as soon as it can be opened.

        For a raw LUN, another thread must answer its commands meanwhile: Linux sends INQUIRY and other
        commands, and reads the first blocks.

        Args:
            timeout: Seconds.

        Raises:
            HostError: Linux has none by then, or the kernel refused to link the LUN.
        """
        deadline = monotonic() + timeout
        try:
            self.linked.result(timeout)
        except NotYet as error:
            raise HostError(
                f"LUN {self.number} is not linked after {timeout:g} s", cure="answer the commands of its HBA"
            ) from error
        return self._port.disk(self.number, max(0.0, deadline - monotonic()))

    def wait_until_gone(self, timeout: float = 60.0) -> None:
        """Wait until the LUN is removed, after `VirtualHba.remove_lun`.

        For a raw LUN, another thread must answer its commands meanwhile: Linux flushes it.

        Args:
            timeout: Seconds.

        Raises:
            HostError: It still exists by then, or the kernel refused a step.
        """
        try:
            self.gone.result(timeout)
        except NotYet as error:
            raise HostError(
                f"LUN {self.number} still exists after {timeout:g} s",
                cure="end its users, and answer its commands",
            ) from error
