"""A LUN as the caller holds it: its shape, and whether Linux has made a disk of it.

Knows the port that it lives on, not who serves it.
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
        number: On its HBA.
        geometry: Its shape, in bytes.
        unit: The SCSI disk that answers for it: always (a handler's LUN), or for the tasks that
            are handed to `Task.answer_as`.
        linked: Done when Linux has scanned it, failed if it could not.
        gone: Done when nothing of it is left, failed if the kernel refused a step.
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
        """The disk, such as ``/dev/sda``; None while there is none. Does not wait."""
        if self.gone.done() or not self.linked.done() or self.linked.exception() is not None:
            return None
        try:
            return self._port.disk(self.number, 0)
        except HostError:
            return None

    def wait_for_disk(self, timeout: float = 60.0) -> Path:
        """Return the disk, as soon as it can be opened.

        For a raw LUN, another thread must be answering its commands meanwhile: Linux asks it
        what it is, and reads its first blocks.

        Args:
            timeout: Seconds.

        Raises:
            HostError: There is none by then, or the kernel refused to link the LUN.
        """
        deadline = monotonic() + timeout
        try:
            self.linked.result(timeout)
        except NotYet as error:
            raise HostError(
                f"LUN {self.number} is not linked after {timeout:g} s", cure="is its HBA being served?"
            ) from error
        return self._port.disk(self.number, max(0.0, deadline - monotonic()))

    def wait_until_gone(self, timeout: float = 60.0) -> None:
        """Return when nothing is left of the LUN, after `VirtualHba.remove_lun`.

        For a raw LUN, another thread must be answering its commands meanwhile: Linux flushes it.

        Args:
            timeout: Seconds.

        Raises:
            HostError: It is still there by then, or the kernel refused a step.
        """
        try:
            self.gone.result(timeout)
        except NotYet as error:
            raise HostError(
                f"LUN {self.number} is still there after {timeout:g} s",
                cure="is it in use, or are its commands not answered?",
            ) from error
