"""Where the LUNs of an HBA live: in the kernel, or in this process.

A port makes rings and links; what a command means it does not know.
"""

from pathlib import Path
from typing import Protocol

from vscsihba.block import Geometry
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.hba.handled import ServableLun
from vscsihba.transport import Transport


class Port(Protocol):
    """One HBA, in the order of its life.

    `link` and `unlink` are called from a thread of their own, since both may wait for answers.
    """

    def open(self) -> None:
        """Make the HBA.

        Raises:
            HostError: This machine lacks something, or another process has the id.
        """

    def attach(self, lun: int, geometry: Geometry, serial: str) -> Transport:
        """Make the ring of a LUN that is to be linked; closed by whoever serves it.

        Raises:
            HostError: The kernel refuses; nothing stays behind.
        """

    def hold(self, spec: LunSpec, pump: Pump, *, listeners: Listeners, units: UnitsOfHba) -> ServableLun:
        """Return what serves a LUN with a stack of handlers, once it is opened; it makes the ring.

        Args:
            spec: The LUN.
            pump: Serves it.
            listeners: Who is told of commands and failures.
            units: The units of the HBA that are served so.

        Raises:
            HostError: What is there in its place cannot be removed.
        """

    def is_linked(self, lun: int) -> bool:
        """Tell whether the initiator has seen the LUN before this process came."""

    def link(self, lun: int) -> None:
        """Let the initiator see the LUN; it asks what it is before this returns.

        Raises:
            HostError: The kernel refuses, or nobody answered.
        """

    def unlink(self, lun: int, *, served: bool) -> None:
        """Take the LUN away from the initiator, which flushes before this returns.

        Args:
            lun: Its number.
            served: Its commands are being answered; if not, they fail.

        Raises:
            HostError: The kernel refuses.
        """

    def detach(self, lun: int) -> None:
        """Remove the ring, which nobody serves any more, and all else that was there for the LUN.

        Raises:
            HostError: The kernel refuses.
        """

    def disk(self, lun: int, timeout: float) -> Path:
        """Return the disk that the initiator made of the LUN, waiting up to `timeout` seconds.

        Raises:
            HostError: There is none by then.
        """

    def close(self) -> None:
        """Remove the HBA.

        Raises:
            HostError: The kernel refuses.
        """
