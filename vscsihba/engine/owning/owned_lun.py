"""A tenure: the time for which this engine is the one that serves a LUN.

Opens medium and ring, goes on with what is under way in the ring, and gives both up
again in an order that lets the next engine go on. One owner a LUN: a lock file says who.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from vscsihba import configfs, scsi, threads
from vscsihba.block import Geometry
from vscsihba.config.sizes import source_of
from vscsihba.engine.owning.assembly import assemble
from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.engine.owning.layer_actions import LayerActions
from vscsihba.engine.owning.locks import try_lock
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import DeviceGoneError, HostError, JournalDamagedError, RingCorruptError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.stack import Document, Stack
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import SYSFS, UioDevice, read_device
from vscsihba.transport import Recovered
from vscsihba.units import exact_size, parse_size

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds to wait for verbs under way before a ring is left as it is."""


class OwnedLun:
    """This engine as the owner of one LUN, from `open` to `close`.

    Args:
        hba_id: 0..255.
        spec: The LUN.
        run: The HBA's run directory.
        pump: Serves the ring.
        listeners: Who is told of commands and failures.
        units: The HBA's units that this engine serves.

    Attributes:
        name: Of the backstore.
        created: There was no backstore before `open`.
        grown: The backstore was smaller before `open`; Linux has not noticed yet.
        stack: The layers of the medium; None before `open` and after `close`.
        served: What the pump serves; None before `open` and after `close`.
        actions: What its layers can be asked to do; None likewise.
        ended: Nothing of it is open: not opened yet, or given up.
        since: When it was made, in seconds of CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        hba_id: int,
        spec: LunSpec,
        run: Path,
        *,
        pump: Pump,
        listeners: Listeners,
        units: UnitsOfHba,
    ) -> None:
        self.spec = spec
        self.served: ServedLun | None = None
        self.actions: LayerActions | None = None
        self.created = self.grown = False
        self.ended = True
        self.since = time.monotonic()
        self.stack: Stack | None = None
        self._id = hba_id
        self.name = configfs.backstore_name(hba_id, spec.lun)
        self._run = run
        self._lock = run / f"lun{spec.lun}.lock"
        self._journal = run / f"lun{spec.lun}.journal"
        self._record = FlushRecord(spec.lun, run / f"lun{spec.lun}.unflushed")
        self._pump = pump
        self._listeners = listeners
        self._units = units
        self._undo = ExitStack()

    def open(self, *, make: bool = False, adopt: bool = False) -> bool:
        """Become the owner, create the backstore if there is none, and serve; False if another is the owner.

        Args:
            make: The medium may be made if it is missing: the LUN is being added. A LUN whose backstore is
                there had one, so none is made for it.
            adopt: The backstore must be there: the LUN is served by one engine after the other.

        Raises:
            UsageError: The medium is not the one that the LUN was made of.
            HostError: Medium or ring cannot be opened.
        """
        lock = try_lock(self._lock)
        if lock is None:
            return False
        with ExitStack() as undo, ExitStack() as unmake:
            undo.callback(os.close, lock)
            self._record.load()
            undo.push(self._record.end)
            make = make and _find(self.name) is None
            stack = self.spec.build(make=make)
            handler = undo.enter_context(stack)
            undo.callback(self._record.begin)
            identity = self.spec.appearance.identity(handler.identity)
            if not make:
                self._check_size(stack)
            device = self._device(handler.geometry, identity, adopt=adopt)
            if self.created:
                unmake.callback(configfs.delete_backstore, self.name)
                self._record.forget()
            elif self._record.reason is not None:
                log.error("lun %d: %s: the next flush will report it", self.spec.lun, self._record.reason)
            self.spec.note(self._run)
            self.served = self._serve(handler, identity, self._transport(device))
            self._record.serve()
            self.actions = LayerActions(stack)
            self.stack = stack
            self.ended = False
            unmake.pop_all()
            self._undo = undo.pop_all()
        return True

    def _check_size(self, stack: Stack) -> None:
        """Refuse a medium that has shrunk since its LUN was last up; of one that is up the kernel knows more.

        Raises:
            HostError: It has less than the document says.
        """
        document = self.spec.document
        source = source_of(document) if isinstance(document, dict) else {}
        size, found = source.get("size"), stack.layers[0].geometry.size
        if size is None or source.get("create") is True or _find(self.name) is not None:
            return
        if found < (wanted := parse_size(str(size))):
            raise HostError(
                f"{stack.layers[0].identity} has only {exact_size(found)} of its {exact_size(wanted)}",
                cure=f"restore it; if only zeroes are missing: truncate -s {wanted} it",
            )

    def _serve(self, handler: Handler, identity: scsi.Identity, transport: TcmuTransport) -> ServedLun:
        """Have the pump serve the ring, and go on first with what a predecessor had under way."""
        with ExitStack() as failing:
            failing.callback(transport.close)
            recovered = self._recover(transport)
            served = assemble(
                self.spec,
                identity,
                handler,
                transport,
                self._pump.calls,
                listeners=self._listeners,
                units=self._units,
                state=UnitState(identity.serial),
                record=self._record,
                target_core=True,
                free_kept=partial(configfs.free_kept_buf, self.name),
            )
            failing.pop_all()
        self._pump.calls.post(partial(served.begin, self._pump, recovered))
        return served

    def _transport(self, device: UioDevice) -> TcmuTransport:
        """Open the ring; where a predecessor has left nonsense in its mailbox, the kernel makes it anew."""
        try:
            return TcmuTransport(device, self._journal)
        except RingCorruptError as error:
            log.warning("lun %d: %s; its commands are answered BUSY and come again", self.spec.lun, error)
            configfs.reset_ring(self.name)
            return TcmuTransport(device, self._journal)

    def _recover(self, transport: TcmuTransport) -> list[Recovered]:
        """Return what a predecessor had under way; where that cannot be told, initiators are to ask again."""
        try:
            return transport.recover()
        except (JournalDamagedError, RingCorruptError) as error:
            log.warning("lun %d: %s; its commands are answered BUSY and come again", self.spec.lun, error)
            configfs.reset_ring(self.name)
            transport.restart()
            return []

    def close(self, patience: float = _PATIENCE) -> None:
        """Finish what is under way, answer it, and give the LUN up; its commands wait for the next owner.

        Where a verb, an action of a layer or the last flush does not return, the LUN stays this process's
        until that ends: the next owner must not be overtaken by it. It is given up then, or with the process.

        Args:
            patience: Seconds to wait for that.

        Raises:
            OSError: The medium could not be closed; the LUN is given up, and its next owner knows that
                acknowledged data may be lost.
        """
        closing = Closing(self._wait, self._give_up)
        try:
            threads.start(threading.Thread(target=closing.run, name=f"close-{self.name}", daemon=True))
        except OSError:  # then it is waited for, as long as it takes
            closing.run()
        if not closing.done(patience):
            log.error(
                "lun %d: its storage does not answer; its commands wait for that, or for our end",
                self.spec.lun,
            )

    def _wait(self) -> None:
        """Wait for what is under way; nothing new begins."""
        if self.actions is not None:
            self.actions.stop()
        if self.served is not None:
            closed = threading.Event()
            self._pump.calls.post(partial(self.served.end, self._pump, closed.set))
            closed.wait()
        if self.actions is not None:
            self.actions.wait()

    def _give_up(self) -> None:
        self.served = self.actions = self.stack = None
        try:
            self._undo.close()
        finally:
            self.ended = True

    @property
    def failed(self) -> bool:
        """Tell whether the ring is served no longer, because of the ring or of the code that served it."""
        return self.served is not None and self.served.failure is not None

    @property
    def lost(self) -> bool:
        """Tell whether a failure is final: the device is gone, or what the medium holds would go with it."""
        served, stack = self.served, self.stack
        if served is None or stack is None or served.failure is None:
            return False
        return isinstance(served.failure, DeviceGoneError) or _is_volatile(stack)

    @property
    def answers(self) -> bool:
        """Tell whether commands are answered: the LUN is served, ring and storage work."""
        return self.served is not None and self.served.failure is None and not self.served.hung

    def take_note(self, document: Document) -> None:
        """Note that the stack is another one now, for whoever owns the LUN next."""
        self.spec = replace(self.spec, document=document)
        self.spec.note(self._run)

    def _device(self, geometry: Geometry, identity: scsi.Identity, *, adopt: bool) -> UioDevice:
        """Return the uio device of the backstore, which is made if it is not there and not to be adopted.

        Where the medium has grown since (its owner died meanwhile, or nobody served it), it grows too.
        """
        found = _find(self.name)
        self.created = found is None
        if found is None and adopt:
            raise HostError(f"another program has removed the backstore {self.name}", cure="remove the LUN")
        if found is None:
            found = configfs.create_backstore(
                configfs.BackstoreSpec(
                    name=self.name,
                    size=geometry.size,
                    serial=identity.serial,
                    config=f"hba{self._id}/lun{self.spec.lun}",
                    block_size=geometry.block_size,
                    hw_max_sectors=self.spec.appearance.hw_max_sectors(geometry.block_size),
                )
            )
        elif (found.spec.serial, found.spec.block_size) != (
            identity.serial,
            geometry.block_size,
        ) or found.spec.size > geometry.size:
            raise AnotherDiskError(self._id, self.spec.lun)
        elif found.spec.size < geometry.size:
            configfs.resize_backstore(self.name, geometry.size)
            self.grown = True
        device = read_device(SYSFS / found.uio.name) if found.uio else None
        if device is None:
            raise HostError(f"backstore {self.name} has no uio device", cure="see dmesg for the reason")
        return device


def _is_volatile(stack: Stack) -> bool:
    """Tell whether a layer, or one of a leg, forgets what it holds when it is closed."""
    legs = [leg for layer in stack.layers if isinstance(layer, Fan) for leg in layer.legs]
    return any(layer.volatile for layer in stack.layers) or any(
        isinstance(leg, Stack) and _is_volatile(leg) for leg in legs
    )


class Closing:
    """The closing of a LUN on a thread of its own, whose starter need not wait for its end.

    Args:
        wait: Waits for what is under way, for as long as that takes.
        close: Closes everything.
    """

    def __init__(self, wait: Callable[[], None], close: Callable[[], None]) -> None:
        self._wait = wait
        self._close = close
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._left = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Wait, and close; a failure is the starter's if it waits, else a line in the log."""
        try:
            self._wait()
            self._close()
        except Exception as error:  # noqa: BLE001 - carried to the starter
            self._error = error
        with self._lock:
            self._ended.set()
            if not self._left:
                return
        if self._error is not None:
            log.error("given up late: %s", self._error)
        else:
            log.warning("the storage has answered; the LUN is given up")

    def done(self, patience: float) -> bool:
        """Wait for the end; False if it has not come within so many seconds.

        Raises:
            OSError: Something could not be closed.
        """
        self._ended.wait(patience)
        with self._lock:
            if not self._ended.is_set():
                self._left = True
                return False
        if self._error is not None:
            raise self._error
        return True


def _find(name: str) -> configfs.Backstore | None:
    """Return the backstore if it is there; one whose making was cut short is removed."""
    try:
        found = configfs.find_backstore(name)
    except HostError:
        return None
    if found.enabled:
        return found
    configfs.delete_backstore(name)
    return None
