"""The LUNs of one HBA: made, given to whoever serves them, and let go.

Knows the two kinds, raw and handled; what can be meant by a caller was judged before.
"""

import logging
from functools import partial

from vscsihba import scsi
from vscsihba.block import Capabilities, Geometry
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
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
    """What is there.

    Args:
        name: Of the HBA, for threads.
        port: Where the LUNs live; open.
        inbox: Where commands of raw LUNs go, and words of rings that fail.
        links: Links and unlinks them.

    Attributes:
        there: By number.
    """

    def __init__(self, name: str, port: Port, inbox: Inbox, links: Links) -> None:
        self.there: dict[int, Lun] = {}
        self._name = name
        self._port = port
        self._inbox = inbox
        self._links = links
        self._raw: dict[int, RawLun] = {}
        self._handled: dict[int, HandledLun] = {}
        self._pump: Pump | None = None
        self._units = UnitsOfHba()

    def add_raw(self, number: int, geometry: Geometry, identity: str) -> Lun:
        """Add a LUN whose commands the caller answers; see `vscsihba.hba.VirtualHba.add_lun`."""
        names = scsi.Identity.derive(identity)
        # No volatile cache: a prototype that says GOOD to a write has it.
        unit = scsi.LogicalUnit(geometry, Capabilities(), names, write_cache=False)
        served = RawLun(number, self._port.attach(number, geometry, names.serial), unit)
        self._raw[number] = served
        self._inbox.add(served)
        return self._keep(Lun(number, geometry, unit, self._port), served)

    def add_handled(self, number: int, document: Document) -> Lun:
        """Add a LUN that a stack of handlers serves; see likewise."""
        if self._pump is None:
            self._pump = Pump(died=self._died)
            self._pump.start(self._name)
        holding = self._port.hold(
            LunSpec(number, absolute(document)),
            self._pump,
            listeners=Listeners(failed=self._failed),
            units=self._units,
        )
        served = self._handled[number] = HandledLun(number, holding)
        return self._keep(Lun(number, served.geometry, served.unit, self._port), served)

    def _keep(self, lun: Lun, served: RawLun | HandledLun) -> Lun:
        self.there[lun.number] = lun
        self._links.add(lun, served)
        return lun

    def _died(self, _name: str, error: BaseException) -> None:
        """Let the caller know that no handler's LUN is served any more: it is the caller's process."""
        for served in tuple(self._handled.values()):
            served.fail(EngineFaultError(error))

    def _failed(self, text: str) -> None:
        self._inbox.put(TransportError(text))

    def remove(self, number: int) -> Lun:
        """Begin to take a LUN away; twice is harmless."""
        going = self.there[number]
        self._links.remove(going, partial(self._forget, number))
        return going

    def _forget(self, number: int) -> None:
        self._raw.pop(number, None)
        self._handled.pop(number, None)
        self.there.pop(number)

    def leave_raw(self) -> None:
        """Refuse what is open at raw LUNs, and whatever comes to them from now on."""
        for served in tuple(self._raw.values()):
            try:
                served.abandon()
            except TransportError as error:
                log.debug("%s", error)

    def stop(self) -> None:
        """End the thread that serves handled LUNs, all of which are down; twice is harmless."""
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
