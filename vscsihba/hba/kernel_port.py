"""An HBA port of this machine's kernel: tcm_loop, with LUNs over target_core_user.

It finds the leftovers of a killed process on this HBA: raw LUNs are removed, LUNs of handlers are taken over.
"""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from vscsihba import configfs
from vscsihba.block import Geometry
from vscsihba.control import ControlServer
from vscsihba.engine.owning.locks import lock_hba, run_directory
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.tap import Taps
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.engine.trace_stream import trace_stream
from vscsihba.errors import HostError, InUseError
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import SYSFS, read_device
from vscsihba.transport import Transport

log = logging.getLogger(__name__)


class KernelPort:
    """An HBA of this machine's kernel (tcm_loop), its LUNs over target_core_user.

    Args:
        hba_id: 0..255.
        taps: Taps of its LUNs, which ``vscsihba trace`` reaches by a control socket; None: there is none.
    """

    def __init__(self, hba_id: int, taps: Taps | None = None) -> None:
        self._id = hba_id
        self._taps = taps
        self._run = run_directory(hba_id)
        self._orphans: set[int] = set()  # LUNs of a dead process
        self._undo = ExitStack()

    def open(self) -> None:
        """Create the HBA; keep LUNs of handlers that a dead process has left."""
        with ExitStack() as undo:
            configfs.prepare()
            undo.enter_context(lock_hba(self._id))
            self._orphans = self._find_orphans()
            configfs.clear_hba(self._id, keep=self._orphans)
            configfs.create_hba(self._id)
            undo.callback(self._remove)
            if self._taps is not None:
                verbs = {"trace": partial(trace_stream, self._taps, self._id)}
                path = self._run / f"program-{os.getpid()}.control"
                undo.enter_context(ControlServer(path, verbs, died=_untraced))
            self._undo = undo.pop_all()

    def _find_orphans(self) -> set[int]:
        """Return the complete LUNs with a note in the run directory."""
        hba = configfs.observe().hbas.get(self._id)
        luns = hba.luns.values() if hba else ()
        return {lun.number for lun in luns if lun.complete and (self._run / f"lun{lun.number}.json").exists()}

    def _remove(self) -> None:
        if self._orphans:
            configfs.clear_hba(self._id)
            self._forget(*self._orphans)
        else:
            configfs.delete_hba(self._id)

    def _clear(self, lun: int) -> None:
        """Remove an orphan that is not wanted, unless its disk is in use."""
        if lun not in self._orphans:
            return
        if users := configfs.users_of_lun(self._id, lun):
            raise InUseError(
                f"LUN {lun} of HBA {self._id} is left over from a process that ended, but {users[0]}",
                cure="detach it there first, or add the disk that it was",
            )
        configfs.unlink_lun(self._id, lun, served=False)
        configfs.delete_backstore(configfs.backstore_name(self._id, lun))
        self._orphans.discard(lun)
        self._forget(lun)

    def _forget(self, *luns: int) -> None:
        for lun in luns:
            for kind in ("json", "journal", "unflushed", "stats", "lock"):
                (self._run / f"lun{lun}.{kind}").unlink(missing_ok=True)

    def hold(self, spec: LunSpec, pump: Pump, *, listeners: Listeners, units: UnitsOfHba) -> OwnedLun:
        """Return the LUN, which takes over the same LUN of a dead process, if there is one."""
        if not spec.agrees(self._run):
            self._clear(spec.lun)
        pump.calls.post(partial(pump.adapt_completions, partial(configfs.set_completion_affinity, self._id)))
        return TakenOverLun(
            partial(self._clear, spec.lun),
            self._id,
            spec,
            self._run,
            pump=pump,
            listeners=listeners,
            units=units,
        )

    def attach(self, lun: int, geometry: Geometry, serial: str) -> Transport:
        """Create a backstore and open its ring."""
        self._clear(lun)
        self._forget(lun)
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

    def is_linked(self, lun: int) -> bool:
        """Return whether it is a LUN of a dead process."""
        return lun in self._orphans

    def link(self, lun: int) -> None:
        """Link the backstore, which the kernel then scans; an orphan is linked already."""
        if lun in self._orphans:
            self._orphans.discard(lun)
            return
        configfs.link_lun(self._id, lun, configfs.backstore_name(self._id, lun))

    def unlink(self, lun: int, *, served: bool) -> None:
        """Unlink the backstore; Linux flushes the disk."""
        configfs.unlink_lun(self._id, lun, served=served)

    def detach(self, lun: int) -> None:
        """Delete the backstore, and the files of the LUN in the run directory."""
        configfs.delete_backstore(configfs.backstore_name(self._id, lun))
        self._forget(lun)

    def disk(self, lun: int, timeout: float) -> Path:
        """Return ``/dev/sdX``."""
        return configfs.wait_for_lun(self._id, lun, timeout=timeout).disk

    def close(self) -> None:
        """Delete the HBA and release its id."""
        self._undo.close()


def _untraced(name: str, error: BaseException) -> None:
    """Log that traces cannot begin any more: this process, the caller's, goes on."""
    log.error("the thread %s has ended: %s", name, error)


class TakenOverLun(OwnedLun):
    """An owned LUN that replaces another disk, left under the same number by a dead process.

    Args:
        clear: Removes the other disk.
        hba_id: As in `OwnedLun`, like all that follow.
        spec: As in `OwnedLun`.
        run: As in `OwnedLun`.
        pump: As in `OwnedLun`.
        listeners: As in `OwnedLun`.
        units: As in `OwnedLun`.
    """

    def __init__(
        self,
        clear: Callable[[], None],
        hba_id: int,
        spec: LunSpec,
        run: Path,
        *,
        pump: Pump,
        listeners: Listeners,
        units: UnitsOfHba,
    ) -> None:
        super().__init__(hba_id, spec, run, pump=pump, listeners=listeners, units=units)
        self._clear = clear

    def open(self, *, make: bool = True, adopt: bool = False) -> bool:
        """See `OwnedLun.open`."""
        try:
            return super().open(make=make, adopt=adopt)
        except AnotherDiskError:
            self._clear()
        return super().open(make=make, adopt=adopt)
