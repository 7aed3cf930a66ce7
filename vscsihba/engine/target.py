"""A target in the foreground: stacks, rings, HBA and disks, put up and taken down in order.

The order is the kernel's: a LUN is scanned while it is linked, so its ring must be
served before; it is flushed while it is unlinked, so its ring is served until after.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from vscsihba import configfs, scsi
from vscsihba.engine.claim import claim_hba
from vscsihba.engine.lun import ServedLun
from vscsihba.engine.pump import Pump
from vscsihba.errors import HostError, TransportError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.stack import Document, build
from vscsihba.stats import LunStats
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import SYSFS, read_device
from vscsihba.trace import TraceSink

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds to wait for verbs under way before a ring is left as it is."""


@dataclass(frozen=True, slots=True)
class LunRequest:
    """A logical unit, as wanted.

    Attributes:
        lun: Its number on the HBA.
        document: Its handler stack.
        removable: Its medium can be ejected.
    """

    lun: int
    document: Document
    removable: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """A logical unit, as Linux sees it.

    Attributes:
        lun: Its number on the HBA.
        device: ``/dev/sdX``.
        size: Bytes.
    """

    lun: int
    device: Path
    size: int


class Target:
    """One HBA served by this process while the context is entered.

    Args:
        hba_id: 0..255.
        requests: The LUNs.
        trace: Told of every command.
        on_failure: Called with a line of text when a ring can no longer be served.

    Raises:
        UsageError: A stack or a number cannot be meant; nothing was changed.
        HostError: This machine lacks something; all that was done is undone.
    """

    def __init__(
        self,
        hba_id: int,
        requests: Sequence[LunRequest],
        *,
        trace: TraceSink | None = None,
        on_failure: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.disks: list[Disk] = []
        self._id = hba_id
        self._requests = requests
        self._trace = trace
        self._on_failure = on_failure
        self._sizes: dict[int, int] = {}
        self._pump = Pump()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            stacks = [build(request.document, place=f"LUN {request.lun}") for request in self._requests]
            for stack in stacks:
                stack.check()
            configfs.prepare()
            undo.enter_context(claim_hba(self._id))
            configfs.clear_hba(self._id)
            self._pump.start(f"hba{self._id}")
            undo.callback(self._pump.stop)
            for request, stack in zip(self._requests, stacks, strict=True):
                self._serve(request, undo.enter_context(stack), undo)
            configfs.create_hba(self._id)
            undo.callback(configfs.delete_hba, self._id)
            for request in self._requests:
                configfs.link_lun(self._id, request.lun, self._name(request))
                undo.callback(configfs.unlink_lun, self._id, request.lun)
            self.disks = [self._disk(request) for request in self._requests]
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def users(self) -> list[str]:
        """Return what still uses the disks, each in words: ``/dev/sda1 is mounted on /mnt``."""
        return [user for disk in self.disks for user in configfs.users_of(disk.device)]

    def _name(self, request: LunRequest) -> str:
        return configfs.backstore_name(self._id, request.lun)

    def _serve(self, request: LunRequest, medium: Handler, undo: ExitStack) -> None:
        """Create the backstore of a LUN and begin to serve its ring."""
        identity = scsi.Identity.derive(medium.identity)
        geometry = medium.geometry
        self._sizes[request.lun] = geometry.size
        spec = configfs.BackstoreSpec(
            name=self._name(request),
            size=geometry.size,
            serial=identity.serial,
            config=f"hba{self._id}/lun{request.lun}",
            block_size=geometry.block_size,
        )
        backstore = configfs.create_backstore(spec)
        undo.callback(configfs.delete_backstore, spec.name)
        device = read_device(SYSFS / backstore.uio.name) if backstore.uio else None
        if device is None:
            raise TransportError(f"backstore {spec.name} has no uio device", cure="see dmesg for the reason")
        stats = LunStats()
        served = ServedLun(
            request.lun,
            TcmuTransport(device),
            scsi.LogicalUnit(
                geometry,
                medium.capabilities,
                identity,
                removable=request.removable,
                stats=stats,
            ),
            medium,
            self._pump.mailbox,
            stats=stats,
            trace=self._trace,
            on_failure=self._on_failure,
        )
        self._pump.mailbox.post(partial(self._pump.add, served))
        undo.callback(self._let_go, served)

    def _let_go(self, served: ServedLun) -> None:
        """Stop serving and wait until nothing touches the ring's memory any more."""
        closed = threading.Event()

        def begin() -> None:
            self._pump.remove(served)
            served.finish(closed.set)

        self._pump.mailbox.post(begin)
        if not closed.wait(_PATIENCE):
            log.error("lun %d: its storage does not answer; its commands are left unanswered", served.lun)

    def _disk(self, request: LunRequest) -> Disk:
        disk = configfs.wait_for_lun(self._id, request.lun).disk
        if disk is None:
            raise HostError(
                f"Linux made no disk of LUN {request.lun}", cure="see dmesg; is the module sd_mod there?"
            )
        return Disk(request.lun, disk, self._sizes[request.lun])
