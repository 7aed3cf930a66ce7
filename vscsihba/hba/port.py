"""The port of an HBA: the place of its LUNs, in the kernel or in this process.

A port creates rings and links LUNs; it knows nothing of commands.
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
    """One HBA, from `open` to `close`.

    `link` and `unlink` are called from a thread of their own, since both may wait for answers.
    """

    def open(self) -> None:
        """Create the HBA.

        Raises:
            HostError: The machine lacks something, or another process uses the id.
        """

    def attach(self, lun: int, geometry: Geometry, serial: str) -> Transport:
        """Create the ring of a LUN that is to be linked; its server closes the returned transport.

        Raises:
            HostError: The kernel refuses; nothing is left behind.
        """

    def hold(self, spec: LunSpec, pump: Pump, *, listeners: Listeners, units: UnitsOfHba) -> ServableLun:
        """Return a LUN that a handler stack serves, closed; opening it creates the ring.

        Args:
            spec: The LUN.
            pump: The pump that serves it.
            listeners: Told of commands and failures.
            units: The units of the HBA that the pump serves.

        Raises:
            HostError: Another disk has its number and cannot be removed.
        """

    def is_linked(self, lun: int) -> bool:
        """Return whether a process before this one has linked the LUN."""

    def link(self, lun: int) -> None:
        """Link the LUN: the initiator scans it before this returns.

        Raises:
            HostError: The kernel refuses, or the scan got no answers.
        """

    def unlink(self, lun: int, *, served: bool) -> None:
        """Unlink the LUN: the initiator flushes it before this returns.

        Args:
            lun: Its number.
            served: Its commands are answered; if not, they fail.

        Raises:
            HostError: The kernel refuses.
        """

    def detach(self, lun: int) -> None:
        """Remove the ring, which is no longer served, and all other traces of the LUN.

        Raises:
            HostError: The kernel refuses.
        """

    def disk(self, lun: int, timeout: float) -> Path:
        """Return the initiator's disk of the LUN, waiting up to `timeout` seconds.

        Raises:
            HostError: It has none by then.
        """

    def close(self) -> None:
        """Remove the HBA.

        Raises:
            HostError: The kernel refuses.
        """
