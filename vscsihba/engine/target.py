"""An engine of an HBA: first to come, one among others, last to go.

The first puts the HBA up, the last takes it down, and each can be asked about its LUNs
meanwhile. How they come and go among several engines, `shared_luns` knows.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, Self

from vscsihba import configfs
from vscsihba.control import ControlServer, Progress
from vscsihba.engine.owning.acting import act
from vscsihba.engine.owning.locks import LockedError, hold_lock, lock_hba, run_directory
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.luns import LinuxDisk
from vscsihba.engine.owning.peers import Peers
from vscsihba.engine.owning.shared_luns import SharedLuns
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.verbs import verbs
from vscsihba.errors import HostError, InUseError

log = logging.getLogger(__name__)

_PATIENCE: Final = 60.0
"""Seconds for another engine to end its change of the HBA, when this one is to leave."""

__all__ = ["LinuxDisk", "LunSpec", "Target"]


class Target(SharedLuns):
    """One HBA served by this process, alone or with others, while the context is entered.

    Args:
        hba_id: 0..255.
        specs: The LUNs that this engine knows.
        listeners: Who is told of commands, failures and events.
        by: Which program this is; only engines of one program share an HBA.
        end: Called when another process asks this one to end, with ``when_free=True`` if it is to wait until
            no disk is in use; None: it cannot be asked.

    Raises:
        UsageError: A stack, a number or the environment cannot be meant; nothing was changed.
        HostError: This machine lacks something; all that was done is undone.
    """

    def __init__(
        self,
        hba_id: int,
        specs: Sequence[LunSpec],
        *,
        listeners: Listeners,
        by: str = "vscsitarget",
        end: Callable[..., None] | None = None,
    ) -> None:
        super().__init__(hba_id, specs, run_directory(hba_id), listeners=listeners)
        self.since = time.time()
        self.by = by
        self._server = ControlServer(self._run / f"engine-{os.getpid()}.control", verbs(self, end))
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        configfs.node_timeout()  # before anything is made
        for spec in self._luns.known.values():
            spec.build(make=True).check()
        configfs.prepare()
        with ExitStack() as undo:
            undo.enter_context(lock_hba(self.id, by=self.by))
            self._pump.start(f"hba{self.id}")
            undo.callback(self._pump.stop)
            known = frozenset(self._luns.known)
            self._peers = Peers(self._run, known, self._balancer.changed)
            undo.callback(self._leave)
            with hold_lock(self._hba_lock):
                self._luns.put_up(self._peers.find())
                self._disks = {lun: self._luns.disk(lun) for lun in self._luns.known}
                self._peers.join()
            self._luns.created |= known  # from now on, what nobody else knows goes with us
            self._balancer.start()
            undo.callback(self._stop_balancing)
            undo.enter_context(self._server)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def users(self) -> list[str]:
        """Return what will lose a disk when this engine leaves: ``/dev/sda1 is mounted on /mnt``."""
        known_by_others = self._known_by_others()
        going = [disk for disk in self.disks if disk.lun not in known_by_others]
        return [user for disk in going for user in configfs.users_of(disk.device)]

    def status(self) -> dict[str, Any]:
        """Return what this engine is and serves, as JSON has it."""
        return {
            "hba": self.id,
            "pid": os.getpid(),
            "by": self.by,
            "since": self.since,
            "luns": [self._luns.status(lun) for lun in sorted(self._luns.known)],
        }

    def actions(self, lun: int) -> dict[str, dict[str, Any]] | None:
        """Return what the layers of a LUN can be asked to do; None if this engine does not serve it."""
        owned = self._luns.owned.get(lun)
        return None if owned is None or owned.actions is None else owned.actions.known()

    def act(
        self,
        lun: int,
        layer: str,
        action: str,
        arguments: Mapping[str, object],
        *,
        force: bool,
        progress: Progress,
    ) -> dict[str, object]:
        """Have a layer of a LUN do something; see `vscsihba.engine.owning.acting.act`.

        It may take long, so LUNs come and go meanwhile, and this one may be given up.
        """
        owned, disk = self._luns.owned.get(lun), self._disks.get(lun)
        if owned is None or disk is None:
            return {"owner": False, "known": lun in self._luns.known}
        return act(
            owned,
            layer,
            action,
            arguments,
            users=lambda: [] if force else configfs.users_of(disk.device),
            reshaped=partial(self._luns.reshaped, owned),
            disturbed=partial(_reread, disk),
            progress=progress,
        )

    def _stop_balancing(self) -> None:
        """Take nothing over any more."""
        self._luns.leaving = True
        self._balancer.stop()

    def _leave(self) -> None:
        """Take down what nobody else knows, and leave the rest to the others.

        Where another engine changes the HBA and does not end, all is left as it is: as after a death.
        """
        try:
            with hold_lock(self._hba_lock, patience=_PATIENCE):
                self._luns.depart(
                    self._known_by_others(), self._peers.leave, last=not self._peers.other_engines
                )
        except LockedError as error:
            log.error("id=%d is left as it is: %s", self.id, error)  # noqa: TRY400 - it says all
            self._peers.leave()


def _reread(disk: LinuxDisk) -> str | None:
    """Let Linux look at the partitions again; return the disk if this process may not (CAP_SYS_ADMIN)."""
    try:
        configfs.reread_partitions(disk.device)
    except InUseError as error:
        log.warning("lun %d: %s", disk.lun, error)
    except HostError:
        return str(disk.device)
    return None
