"""An HBA port inside this process, which plays initiator and kernel; no other process sees its LUNs."""

import logging
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from vscsihba.block import Geometry
from vscsihba.engine.owning.assembly import assemble
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import HostError, TransportError
from vscsihba.loopback import Answer, Loopback
from vscsihba.transport import Transport

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds that `close` waits for the storage."""


class LoopbackPort:
    """An HBA inside this process: no kernel, no root, and the initiator is `run`.

    Attributes:
        loopbacks: Both ends of each LUN's ring, by number.
    """

    def __init__(self) -> None:
        self.loopbacks: dict[int, Loopback] = {}

    def run(self, lun: int, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> Answer:
        """Send a command, and wait for the answer, which another thread must give.

        Raises:
            TransportError: There is no such LUN, or no answer in time.
        """
        if lun not in self.loopbacks:
            raise TransportError(f"there is no LUN {lun}")
        loopback = self.loopbacks[lun]
        return loopback.wait(loopback.submit(cdb, data_out=data_out, data_in=data_in))

    def open(self) -> None:
        """Do nothing: the HBA has no kernel objects."""

    def attach(self, lun: int, geometry: Geometry, serial: str) -> Transport:  # noqa: ARG002
        """Create a ring in memory."""
        return self.make(lun).transport

    def make(self, lun: int) -> Loopback:
        """Return a new ring with both of its ends."""
        loopback = self.loopbacks[lun] = Loopback()
        return loopback

    def hold(self, spec: LunSpec, pump: Pump, *, listeners: Listeners, units: UnitsOfHba) -> "LoopbackLun":
        """Return a LUN with a ring in memory."""
        return LoopbackLun(self, spec, pump, listeners=listeners, units=units)

    def is_linked(self, lun: int) -> bool:  # noqa: ARG002
        """Return False: no LUN outlives its process."""
        return False

    def link(self, lun: int) -> None:
        """Do nothing: there is no kernel that scans."""

    def unlink(self, lun: int, *, served: bool) -> None:
        """Do nothing: there is no kernel that flushes."""

    def detach(self, lun: int) -> None:
        """Free the ring."""
        self.loopbacks.pop(lun).close()

    def disk(self, lun: int, timeout: float) -> Path:  # noqa: ARG002
        """Raise HostError: a LUN inside this process has no disk."""
        raise HostError(f"LUN {lun} is inside this process, which has no disks")

    def close(self) -> None:
        """Do nothing: the HBA has no kernel objects."""


class LoopbackLun:
    """A LUN of a `LoopbackPort`, from `open` to `close`.

    Attributes:
        served: The unit that the pump serves; None before `open`.
    """

    def __init__(
        self,
        port: LoopbackPort,
        spec: LunSpec,
        pump: Pump,
        *,
        listeners: Listeners,
        units: UnitsOfHba,
    ) -> None:
        self.served: ServedLun | None = None
        self._port = port
        self._spec = spec
        self._pump = pump
        self._listeners = listeners
        self._units = units
        self._undo = ExitStack()

    def open(self) -> bool:
        """Open the storage, create a ring, and serve it.

        Raises:
            UsageError, HostError, OSError: The stack cannot be opened.
        """
        with ExitStack() as undo:
            handler = undo.enter_context(self._spec.build(make=True))
            loopback = self._port.make(self._spec.lun)
            self.served = assemble(
                self._spec,
                self._spec.appearance.identity(handler.identity),
                handler,
                loopback.transport,
                self._pump.calls,
                listeners=self._listeners,
                units=self._units,
                free_kept=loopback.free_kept_buf,
            )
            self._undo = undo.pop_all()
        self._pump.calls.post(partial(self.served.begin, self._pump))
        return True

    def close(self) -> None:
        """Finish and answer the commands under way, and close the stack."""
        closed = threading.Event()
        if self.served is not None:
            self._pump.calls.post(partial(self.served.end, self._pump, closed.set))
            if not closed.wait(_PATIENCE):
                log.error(
                    "LUN %d: its storage does not answer; its commands are left unanswered", self._spec.lun
                )
                return
        self._undo.close()
