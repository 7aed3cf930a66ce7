"""Where the LUNs of an HBA live: in the kernel, or in this process.

A port makes rings and links; who serves them, and what a command means, it does not know.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from vscsihba import configfs
from vscsihba.block import Geometry
from vscsihba.engine.claim import claim_hba
from vscsihba.errors import HostError, TransportError
from vscsihba.loopback import Answer, Loopback
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import SYSFS, read_device
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
        """Remove the ring, which nobody serves any more.

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


class KernelPort:
    """An HBA of this machine's kernel (tcm_loop), its LUNs over target_core_user.

    Args:
        hba_id: 0..255.
    """

    def __init__(self, hba_id: int) -> None:
        self._id = hba_id
        self._undo = ExitStack()

    def open(self) -> None:
        """Make the HBA; what a process that died has left of it is removed."""
        with ExitStack() as undo:
            configfs.prepare()
            undo.enter_context(claim_hba(self._id))
            configfs.clear_hba(self._id)
            configfs.create_hba(self._id)
            undo.callback(configfs.delete_hba, self._id)
            self._undo = undo.pop_all()

    def attach(self, lun: int, geometry: Geometry, serial: str) -> Transport:
        """Make a backstore and open its ring."""
        spec = configfs.BackstoreSpec(
            name=configfs.backstore_name(self._id, lun),
            size=geometry.size,
            serial=serial,
            config=f"hba{self._id}/lun{lun}",
            block_size=geometry.block_size,
        )
        backstore = configfs.create_backstore(spec)
        with ExitStack() as undo:
            undo.callback(configfs.delete_backstore, spec.name)
            device = read_device(SYSFS / backstore.uio.name) if backstore.uio else None
            if device is None:
                raise HostError(f"backstore {spec.name} has no uio device", cure="see dmesg for the reason")
            transport = TcmuTransport(device)
            undo.pop_all()
        return transport

    def link(self, lun: int) -> None:
        """Link the backstore; the kernel scans it."""
        configfs.link_lun(self._id, lun, configfs.backstore_name(self._id, lun))

    def unlink(self, lun: int, *, served: bool) -> None:
        """Unlink the backstore; sd flushes its cache."""
        configfs.unlink_lun(self._id, lun, served=served)

    def detach(self, lun: int) -> None:
        """Delete the backstore."""
        configfs.delete_backstore(configfs.backstore_name(self._id, lun))

    def disk(self, lun: int, timeout: float) -> Path:
        """Return ``/dev/sdX``."""
        return configfs.wait_for_lun(self._id, lun, timeout=timeout).disk

    def close(self) -> None:
        """Delete the target and let go of the id."""
        self._undo.close()


class LoopbackPort:
    """An HBA inside this process: no kernel, no root, and the initiator is `run`.

    Attributes:
        loopbacks: Both ends of each LUN's ring, by number.
    """

    def __init__(self) -> None:
        self.loopbacks: dict[int, Loopback] = {}

    def run(self, lun: int, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> Answer:
        """Send a command and wait for the answer, which another thread must give.

        Raises:
            TransportError: There is no such LUN, or no answer in time.
        """
        if lun not in self.loopbacks:
            raise TransportError(f"there is no LUN {lun}")
        loopback = self.loopbacks[lun]
        return loopback.wait(loopback.submit(cdb, data_out=data_out, data_in=data_in))

    def open(self) -> None:
        """Do nothing: there is nothing outside."""

    def attach(self, lun: int, geometry: Geometry, serial: str) -> Transport:  # noqa: ARG002
        """Make a ring in memory."""
        loopback = self.loopbacks[lun] = Loopback()
        return loopback.transport

    def link(self, lun: int) -> None:
        """Do nothing: nobody scans."""

    def unlink(self, lun: int, *, served: bool) -> None:
        """Do nothing: nobody flushes."""

    def detach(self, lun: int) -> None:
        """Free the ring."""
        self.loopbacks.pop(lun).close()

    def disk(self, lun: int, timeout: float) -> Path:  # noqa: ARG002
        """Say that there is none."""
        raise HostError(f"LUN {lun} is inside this process, which has no disks")

    def close(self) -> None:
        """Do nothing: there is nothing outside."""
