"""The LUNs of one HBA: their creation and removal.

Knows the two kinds, raw LUNs and those of handlers; its caller has checked the arguments.
"""

import logging
from functools import partial

from vscsihba import scsi
from vscsihba.block import Capabilities, Geometry
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.tap import Taps
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import EngineFaultError, TransportError
from vscsihba.handlers.stack import Document
from vscsihba.handlers.stack_paths import absolute
from vscsihba.hba.handled import HandledLun
from vscsihba.hba.inbox import Inbox
from vscsihba.hba.links import Links
from vscsihba.hba.lun import Lun
from vscsihba.hba.port import Port
from vscsihba.hba.raw import RawLun

log = logging.getLogger(__name__)


class Luns:
    """The LUNs of one HBA.

    Args:
        name: Name of the HBA, for threads.
        port: Port of the HBA, open.
        inbox: Gets the commands of raw LUNs, and the errors of failed rings.
        links: Links and unlinks the LUNs.
        taps: Taps of the LUNs, for observers of commands.

    Attributes:
        existing: The LUNs, by number.
    """

    def __init__(self, name: str, port: Port, inbox: Inbox, links: Links, taps: Taps) -> None:
        self.existing: dict[int, Lun] = {}
        self._name = name
        self._port = port
        self._inbox = inbox
        self._links = links
        self._taps = taps
        self._raw: dict[int, RawLun] = {}
        self._handled: dict[int, HandledLun] = {}
        self._pump: Pump | None = None
        self._units = UnitsOfHba()

    def add_raw(self, number: int, geometry: Geometry, identity: str) -> Lun:
        """Add a LUN whose commands the caller answers; see `vscsihba.hba.VirtualHba.add_lun`."""
        names = scsi.Identity.derive(identity)
        # No volatile cache: a program that answers a write with GOOD has stored it.
        unit = scsi.LogicalUnit(geometry, Capabilities(), names, write_cache=False)
        served = RawLun(number, self._port.attach(number, geometry, names.serial), unit, self._taps)
        self._raw[number] = served
        self._inbox.add(served)
        return self._keep(Lun(number, geometry, unit, self._port), served)

    def add_handled(self, number: int, document: Document) -> Lun:
        """Add a LUN that a handler stack serves; see `vscsihba.hba.VirtualHba.add_lun`."""
        if self._pump is None:
            self._pump = Pump(died=self._died)
            self._pump.start(self._name)
        servable = self._port.hold(
            LunSpec(number, absolute(document)),
            self._pump,
            listeners=Listeners(failed=self._failed, taps=self._taps),
            units=self._units,
        )
        served = self._handled[number] = HandledLun(number, servable)
        return self._keep(Lun(number, served.geometry, served.unit, self._port), served)

    def _keep(self, lun: Lun, served: RawLun | HandledLun) -> Lun:
        self.existing[lun.number] = lun
        self._links.add(lun, served)
        return lun

    def _died(self, _name: str, error: BaseException) -> None:
        """Report that the LUNs of handlers are no longer served: this process, the caller's, goes on."""
        for served in tuple(self._handled.values()):
            served.fail(EngineFaultError(error))

    def _failed(self, text: str) -> None:
        self._inbox.put(TransportError(text))

    def remove(self, number: int) -> Lun:
        """Begin to remove a LUN; a second call has no effect."""
        lun = self.existing[number]
        self._links.remove(lun, partial(self._forget, number))
        return lun

    def _forget(self, number: int) -> None:
        self._raw.pop(number, None)
        self._handled.pop(number, None)
        self.existing.pop(number)

    def leave_raw(self) -> None:
        """Refuse the open commands of raw LUNs, and all that come from now on."""
        for served in tuple(self._raw.values()):
            try:
                served.abandon()
            except TransportError as error:
                log.debug("%s", error)

    def stop(self) -> None:
        """End the pump, whose LUNs are all removed; a second call has no effect."""
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
