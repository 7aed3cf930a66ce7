"""An HBA port of this machine's kernel: tcm_loop, with LUNs over target_core_user.

What a process that was killed has left of the HBA is found here: LUNs that the caller
answered end with it, those of handlers are gone on with.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from vscsihba import configfs
from vscsihba.block import Geometry
from vscsihba.engine.owning.locks import lock_hba, run_directory
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import HostError, InUseError
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import SYSFS, read_device
from vscsihba.transport import Transport


class KernelPort:
    """An HBA of this machine's kernel (tcm_loop), its LUNs over target_core_user.

    Args:
        hba_id: 0..255.
    """

    def __init__(self, hba_id: int) -> None:
        self._id = hba_id
        self._run = run_directory(hba_id)
        self._orphans: set[int] = set()
        self._undo = ExitStack()

    def open(self) -> None:
        """Make the HBA; of what a process that died has left of it, the LUNs of handlers are kept."""
        with ExitStack() as undo:
            configfs.prepare()
            undo.enter_context(lock_hba(self._id))
            self._orphans = self._find_orphans()
            configfs.clear_hba(self._id, keep=self._orphans)
            configfs.create_hba(self._id)
            undo.callback(self._remove)
            self._undo = undo.pop_all()

    def _find_orphans(self) -> set[int]:
        """Return the LUNs that work, and of which an engine has noted what they are."""
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
        """Remove the LUN of somebody who has died and that is not wanted, unless its disk is in use."""
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
            for kind in ("json", "journal", "unflushed", "lock"):
                (self._run / f"lun{lun}.{kind}").unlink(missing_ok=True)

    def hold(self, spec: LunSpec, pump: Pump, *, listeners: Listeners, units: UnitsOfHba) -> OwnedLun:
        """Return a tenure, which goes on with what a predecessor has left of this very LUN."""
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
        """Make a backstore and open its ring."""
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
        """Tell whether it is a LUN of a process that has died."""
        return lun in self._orphans

    def link(self, lun: int) -> None:
        """Link the backstore; the kernel scans it, unless it knows it already."""
        if lun in self._orphans:
            self._orphans.discard(lun)
            return
        configfs.link_lun(self._id, lun, configfs.backstore_name(self._id, lun))

    def unlink(self, lun: int, *, served: bool) -> None:
        """Unlink the backstore; sd flushes its cache."""
        configfs.unlink_lun(self._id, lun, served=served)

    def detach(self, lun: int) -> None:
        """Delete the backstore, and what stands in the run directory for the LUN."""
        configfs.delete_backstore(configfs.backstore_name(self._id, lun))
        self._forget(lun)

    def disk(self, lun: int, timeout: float) -> Path:
        """Return ``/dev/sdX``."""
        return configfs.wait_for_lun(self._id, lun, timeout=timeout).disk

    def close(self) -> None:
        """Delete the target and let go of the id."""
        self._undo.close()


class TakenOverLun(OwnedLun):
    """A tenure that puts its LUN in the place of another disk that a dead process has left there.

    Args:
        clear: Removes that.
        hba_id: As in `OwnedLun`, and so on.
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
