"""A LUN while this engine owns it: the only process that serves it.

Opens storage and ring, finishes the commands that the last owner has left in the ring, and closes both in an
order that lets the next owner go on. The owner holds a lock file, so there is one at a time.
"""

import logging
import os
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from vscsihba import configfs, scsi, threads
from vscsihba.block import Geometry
from vscsihba.config.sizes import source_of
from vscsihba.engine.owning.assembly import assemble
from vscsihba.engine.owning.closing import Closing
from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.engine.owning.layer_actions import LayerActions
from vscsihba.engine.owning.locks import try_lock
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.stats_file import StatsFile
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import DeviceGoneError, HostError, JournalDamagedError, RingCorruptError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.stack import Document, Stack
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import SYSFS, UioDevice, read_device
from vscsihba.transport import Recovered
from vscsihba.units import exact_size, format_size, parse_size

log = logging.getLogger(__name__)

_PATIENCE: Final = 30.0
"""Seconds that `close` waits for the storage."""

_RESIZE_PATIENCE: Final = 60.0
"""Seconds that a resize waits for the commands before it, and for the storage."""


class OwnedLun:
    """A LUN that this engine owns, from `open` to `close`.

    Args:
        hba_id: 0..255.
        spec: The LUN.
        run: The HBA's run directory.
        pump: Serves the ring.
        listeners: Told of commands and failures.
        units: The HBA's units that this engine serves.

    Attributes:
        spec: The LUN, with the stack that it has now.
        name: Name of the backstore.
        created: `open` has created the backstore.
        grown: `open` has enlarged the backstore; Linux has not noticed yet.
        stack: The handler stack; None before `open` and after `close`.
        served: The unit that the pump serves; None before `open` and after `close`.
        actions: The actions of its layers; None before `open` and after `close`.
        storage_size: Bytes that another client has given the storage, until `follow_size`; else None.
        ended: Neither storage nor ring is open: before `open`, or after `close` has succeeded.
        since: Time of construction, in seconds of CLOCK_MONOTONIC.
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
        self.storage_size: int | None = None
        self._id = hba_id
        self.name = configfs.backstore_name(hba_id, spec.lun)
        self._run = run
        self._lock = run / f"lun{spec.lun}.lock"
        self._journal = run / f"lun{spec.lun}.journal"
        self._record = FlushRecord(spec.lun, run / f"lun{spec.lun}.unflushed")
        self._statistics = StatsFile(spec.lun, run / f"lun{spec.lun}.stats")
        self._pump = pump
        self._listeners = listeners
        self._units = units
        self._undo = ExitStack()

    def open(self, *, make: bool = False, adopt: bool = False) -> bool:
        """Become the owner, create the backstore if there is none, and serve; False if another is the owner.

        Args:
            make: Storage that is missing may be created: the LUN is being added. It is not created for
                a LUN whose backstore exists, since such a LUN had storage.
            adopt: The backstore must exist: the LUN is taken over from another engine.

        Raises:
            UsageError: The storage is another disk than the one that the LUN was created with.
            HostError: Storage or ring cannot be opened.
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
                self._statistics.forget()
            elif self._record.reason is not None:
                log.error("lun %d: %s: the next flush will report it", self.spec.lun, self._record.reason)
            self.spec.note(self._run)
            self._statistics.open()
            undo.callback(self._statistics.close)
            self.served = self._serve(handler, identity, self._transport(device))
            self._record.serve()
            self.actions = LayerActions(stack, partial(self._note_failed_action, self.served))
            self.stack = stack
            self.ended = False
            stack.layers[0].resized = self._storage_resized
            unmake.pop_all()
            self._undo = undo.pop_all()
        return True

    def _check_size(self, stack: Stack) -> None:
        """Refuse storage that is smaller than its document says; with a backstore, `_device` compares.

        Raises:
            HostError: It is smaller.
        """
        document = self.spec.document
        source = source_of(document) if isinstance(document, dict) else {}
        size, actual = source.get("size"), stack.layers[0].geometry.size
        if size is None or source.get("create") is True or _find(self.name) is not None:
            return
        if actual < (wanted := parse_size(str(size))):
            raise HostError(
                f"{stack.layers[0].identity} has only {exact_size(actual)} of its {exact_size(wanted)}",
                cure=f"restore it; if only zeroes are missing: truncate -s {wanted} it",
            )

    def _serve(self, handler: Handler, identity: scsi.Identity, transport: TcmuTransport) -> ServedLun:
        """Have the pump serve the ring, beginning with the commands that the last owner has left."""
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
                statistics=self._statistics,
                target_core=True,
                free_kept=partial(configfs.free_kept_buf, self.name),
            )
            failing.pop_all()
        self._pump.calls.post(partial(served.begin, self._pump, recovered))
        return served

    def _transport(self, device: UioDevice) -> TcmuTransport:
        """Open the ring; where the last owner has left its mailbox damaged, have the kernel reset it."""
        try:
            return TcmuTransport(device, self._journal)
        except RingCorruptError as error:
            log.warning("lun %d: %s; its commands are answered BUSY and sent again", self.spec.lun, error)
            configfs.reset_ring(self.name)
            return TcmuTransport(device, self._journal)

    def _recover(self, transport: TcmuTransport) -> list[Recovered]:
        """Return the commands that the last owner has left; if they are not known, reset the ring."""
        try:
            return transport.recover()
        except (JournalDamagedError, RingCorruptError) as error:
            log.warning("lun %d: %s; its commands are answered BUSY and sent again", self.spec.lun, error)
            configfs.reset_ring(self.name)
            transport.restart()
            return []

    def close(self, patience: float = _PATIENCE) -> None:
        """Finish and answer the commands under way, and release the LUN; new ones wait for the next owner.

        Where a verb, an action of a layer or the last flush does not return, this process stays the owner
        until it does, or until the process ends: a late write must not follow one of the next owner.

        Args:
            patience: Seconds to wait for the storage.

        Raises:
            OSError: The storage could not be closed; the LUN is released, and its next owner reports that
                acknowledged data may be lost.
        """
        closing = Closing(self._wait, self._release)
        try:
            threads.start(threading.Thread(target=closing.run, name=f"close-{self.name}", daemon=True))
        except OSError:  # no room for a thread: close here, without a limit
            closing.run()
        if not closing.done(patience):
            log.error(
                "lun %d: its storage does not answer; its commands wait until it does or this process ends",
                self.spec.lun,
            )

    def _wait(self) -> None:
        """Begin nothing new, and wait for commands and actions under way."""
        if self.actions is not None:
            self.actions.stop()
        if self.served is not None:
            closed = threading.Event()
            self._pump.calls.post(partial(self.served.end, self._pump, closed.set))
            closed.wait()
        if self.actions is not None:
            self.actions.wait()

    def _release(self) -> None:
        self.served = self.actions = self.stack = None
        try:
            self._undo.close()
        finally:
            self.ended = True

    @property
    def failed(self) -> bool:
        """Whether the ring is no longer served, because of the ring or of an error in our code."""
        return self.served is not None and self.served.failure is not None

    @property
    def lost(self) -> bool:
        """Whether a failure is final: the device is gone, or reopening the storage would lose its data."""
        served, stack = self.served, self.stack
        if served is None or stack is None or served.failure is None:
            return False
        return isinstance(served.failure, DeviceGoneError) or _is_volatile(stack)

    @property
    def answers(self) -> bool:
        """Whether commands are answered: the LUN is served, ring and storage work."""
        return self.served is not None and self.served.failure is None and not self.served.hung

    def take_note(self, document: Document) -> None:
        """Note the stack that the LUN has from now on, for the next owner."""
        self.spec = replace(self.spec, document=document)
        self.spec.note(self._run)

    def resize(self, size: int) -> None:
        """Change the lowest layer to `size` bytes, then the unit, then the backstore; Linux is not told.

        Layers above the lowest one keep the space that they take for themselves. If the kernel refuses, the
        unit goes back to its old size.

        Raises:
            UsageError: It would shrink, or no disk can have that size.
            HostError, OSError: The storage or the kernel refuses; the size is unchanged.
        """
        served, stack = self.served, self.stack
        if served is None or stack is None:
            raise HostError(f"LUN {self.spec.lun} is not served here")
        lowest = stack.layers[0]
        before, lowest_before = served.handler.geometry, lowest.geometry.size
        if size < lowest_before:
            raise UsageError(
                f"LUN {self.spec.lun} cannot shrink from {format_size(lowest_before)} to {format_size(size)}",
                cure="create a smaller disk and copy the data",
            )
        if size == lowest_before:
            return
        wanted = replace(before, size=before.size + size - lowest_before)
        self._resize_unit(served, wanted.size)
        try:
            if lowest.geometry.size != size:
                raise HostError(  # noqa: TRY301 - undone like a refusal of the kernel
                    f"a layer of LUN {self.spec.lun} has a size of its own", cure="enlarge that layer"
                )
            configfs.resize_backstore(self.name, wanted.size)
        except HostError:
            self._resize_unit(served, before.size)
            raise

    def follow_size(self) -> bool:
        """Give the LUN the size that another client has given its storage; return whether it has grown.

        A disk never shrinks: bytes that its storage has no more cannot be read or written.

        Raises:
            UsageError, HostError, OSError: As `resize`.
        """
        size, self.storage_size = self.storage_size, None
        if size is None or self.stack is None or size <= self.stack.layers[0].geometry.size:
            return False
        self.resize(size)
        return True

    def _storage_resized(self, size: int) -> None:
        self.storage_size = size
        self._listeners.resized()

    def _resize_unit(self, served: ServedLun, size: int) -> None:
        done: Future[None] = Future()
        self._pump.calls.post(partial(served.resize, size, done))
        try:
            done.result(_RESIZE_PATIENCE)
        except TimeoutError as error:
            if done.done():  # an error of the storage itself
                raise
            done.cancel()
            raise HostError(
                f"lun {served.lun}: the storage has not answered within {_RESIZE_PATIENCE:g} s",
                cure="try again",
            ) from error

    def _note_failed_action(self, served: ServedLun, action: str, error: OSError) -> None:
        """Record an action that has lost acknowledged data, for the initiators and for the next owner."""
        noted = threading.Event()
        self._pump.calls.post(partial(served.note_failed_flush, action, error, noted.set))
        noted.wait()

    def reshape(self) -> None:
        """Have unit and backstore follow a size that the storage has already.

        Raises:
            HostError: The kernel refuses.
        """
        if self.served is not None:
            self._pump.calls.post(self.served.reshape)
            configfs.resize_backstore(self.name, self.served.handler.geometry.size)

    def _device(self, geometry: Geometry, identity: scsi.Identity, *, adopt: bool) -> UioDevice:
        """Return the uio device of the backstore; create the backstore if there is none, unless `adopt`.

        A backstore that is smaller than the storage is enlarged: the last owner died during a resize.
        """
        config = configfs.config_of(self._id, self.spec.lun, local=self.spec.local)
        backstore = _find(self.name)
        self.created = backstore is None
        if backstore is None and adopt:
            raise HostError(f"another program has removed the backstore {self.name}", cure="remove the LUN")
        if backstore is None:
            backstore = configfs.create_backstore(
                configfs.BackstoreSpec(
                    name=self.name,
                    size=geometry.size,
                    serial=identity.serial,
                    config=config,
                    block_size=geometry.block_size,
                    hw_max_sectors=self.spec.appearance.hw_max_sectors(geometry.block_size),
                )
            )
        elif (
            backstore.spec.config != config
            or backstore.spec.serial != identity.serial
            or backstore.spec.block_size != geometry.block_size
            or backstore.spec.size > geometry.size
        ):
            raise AnotherDiskError(self._id, self.spec.lun)
        elif backstore.spec.size < geometry.size:
            configfs.resize_backstore(self.name, geometry.size)
            self.grown = True
        device = read_device(SYSFS / backstore.uio.name) if backstore.uio else None
        if device is None:
            raise HostError(f"backstore {self.name} has no uio device", cure="see dmesg for the reason")
        return device


def _is_volatile(stack: Stack) -> bool:
    """Return whether a layer, or one of a leg, loses its data when it is closed."""
    legs = [leg for layer in stack.layers if isinstance(layer, Fan) for leg in layer.legs]
    return any(layer.volatile for layer in stack.layers) or any(
        isinstance(leg, Stack) and _is_volatile(leg) for leg in legs
    )


def _find(name: str) -> configfs.Backstore | None:
    """Return a backstore, None if there is none; one whose creation was interrupted is removed."""
    try:
        backstore = configfs.find_backstore(name)
    except HostError:
        return None
    if backstore.enabled:
        return backstore
    configfs.delete_backstore(name)
    return None
