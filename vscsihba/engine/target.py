"""An engine of an HBA: its LUNs, alone or shared with other engines, from its start to its end.

The first engine creates the HBA, the last one removes it. In between, LUNs are added, resized, removed, and
move between engines. `owning.luns` knows how a LUN is created, `owning.ownership` which are served here.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

from vscsihba import configfs
from vscsihba.control import ControlServer, ProgressCallback
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.assignment import assign_luns
from vscsihba.engine.owning.balancer import Balancer
from vscsihba.engine.owning.locks import LockedError, hold_lock, lock_hba, run_directory
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.luns import LinuxDisk, Luns
from vscsihba.engine.owning.ownership import RETRY, Ownership
from vscsihba.engine.owning.peers import Peers
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.verbs import verbs
from vscsihba.errors import HostError, InUseError, UsageError

log = logging.getLogger(__name__)

_RELEASE_PAUSE: Final = 0.05
"""Seconds between tries to take over a LUN that its last owner has not released yet."""

_RELEASE_PATIENCE: Final = 30.0
"""Seconds for other engines to release a LUN that is to be removed."""

_LEAVE_PATIENCE: Final = 60.0
"""Seconds for another engine to end its change of the HBA, when this engine ends."""

__all__ = ["LinuxDisk", "LunSpec", "Target"]


class Target:
    """One HBA served by this process, alone or with other engines, while the context is entered.

    Any thread may call the public methods.

    Args:
        hba_id: 0..255.
        specs: The LUNs that this engine knows at first.
        listeners: Told of commands, failures and notices.
        by: Name of the program; only engines of one program share an HBA.
        end: Called when another process asks this one to end, with ``when_free=True`` if it is to wait until
            no disk is in use; None: there is no such verb.

    Attributes:
        id: 0..255.
        by: Name of the program.
        since: Time of construction, in seconds since 1970.
        taps: Taps of the LUNs that it serves, for observers of commands.

    Raises:
        UsageError: A stack, a number or the environment is not valid; nothing was changed.
        HostError: The machine lacks something; all that was done is undone.
    """

    _peers: Peers
    """The engines of the HBA; exists while the context is entered."""

    def __init__(
        self,
        hba_id: int,
        specs: Sequence[LunSpec],
        *,
        listeners: Listeners,
        by: str = "vscsitarget",
        end: Callable[..., None] | None = None,
    ) -> None:
        self.id = hba_id
        self.by = by
        self.since = time.time()
        self.taps = listeners.taps
        self._run = run_directory(hba_id)
        self._hba_lock = self._run / "turn.lock"
        self._pump = Pump()
        self._listeners = listeners
        self._ownership = Ownership(
            hba_id,
            self._run,
            pump=self._pump,
            listeners=replace(listeners, failed=self._failed, resized=self._resized),
        )
        self._ownership.known = {spec.lun: spec for spec in specs}
        self._ownership.changed = self._opened_late
        self._luns = Luns(hba_id, self._run, self._ownership, notice=listeners.notice)
        self._disks: dict[int, LinuxDisk] = {}
        self._balancer = Balancer(self._reconcile)
        self._changing = threading.Condition(threading.Lock())
        self._server = ControlServer(self._run / f"engine-{os.getpid()}.control", verbs(self, end))
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        configfs.node_timeout()  # raises before anything is created
        for spec in self._ownership.known.values():
            spec.build(make=True).check()
        configfs.prepare()
        with ExitStack() as undo:
            undo.enter_context(lock_hba(self.id, by=self.by))
            self._pump.start(f"hba{self.id}")
            undo.callback(self._pump.stop)
            known = frozenset(self._ownership.known)
            self._peers = Peers(self._run, known, self._balancer.changed)
            undo.callback(self._leave_hba)
            with hold_lock(self._hba_lock):
                self._luns.create_all(self._peers.find())
                for lun in self._ownership.known:
                    self._note_disk(lun)
                self._peers.join()
            self._ownership.created |= known  # from now on, LUNs that no other engine knows end with this one
            self._balancer.start()
            undo.callback(self._stop_balancer)
            undo.enter_context(self._server)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    # LUNs are added, changed and removed.

    def add(self, spec: LunSpec, *, make: bool = False) -> LinuxDisk | None:
        """Add a LUN, and return its disk as soon as Linux has one; None if the LUN is not local.

        A LUN that is known already and the same disk is left as it is.

        Args:
            spec: The LUN.
            make: Its storage may be created if it is missing. Not for a LUN that was served before: a disk
                image whose file system is not mounted must not be replaced by an empty one.

        Raises:
            UsageError: The LUN exists and is another disk, or its stack is not valid.
            HostError: The kernel or the storage refuses; nothing has changed.
        """
        if spec.lun not in self._ownership.known:
            spec.build(make=make).check()
        with ExitStack() as undo:
            with self._holding(spec.lun):
                if spec.lun not in self._ownership.known:
                    undo.callback(self._withdraw, spec.lun)
                with hold_lock(self._hba_lock):
                    self._luns.add(spec, known_by_others=spec.lun in self._known_by_others(), make=make)
                self._announce()
            # Waits for Linux without `_holding`: other LUNs may have to be taken over in the meantime.
            disk = self._note_disk(spec.lun)
            undo.pop_all()
        return disk

    def _note_disk(self, lun: int) -> LinuxDisk | None:
        """Return the disk of a LUN, and note it; None if the LUN is not local."""
        if (disk := self._luns.disk(lun)) is not None:
            self._disks[lun] = disk
        return disk

    def _withdraw(self, lun: int) -> None:
        """Undo an `add` that has failed."""
        with self._holding(lun):
            if lun not in self._ownership.known:
                return
            with hold_lock(self._hba_lock):
                if lun in self._known_by_others():
                    self._ownership.leave(lun)
                else:
                    self._luns.remove(lun)
            self._announce()

    def remove(self, lun: int, *, force: bool = False) -> None:
        """Remove a LUN once no other engine knows it; a leftover that no engine knows is removed as well.

        Args:
            lun: Its number.
            force: Remove it even if its disk is in use.

        Raises:
            InUseError: Its disk is in use, or another engine serves it.
            HostError: The kernel refuses.
        """
        with self._holding(lun):
            if not force and (users := configfs.users_of_lun(self.id, lun)):
                raise InUseError(
                    f"LUN {lun} of HBA {self.id} is in use: {users[0]}",
                    cure="release it first, or use --force",
                )
            self._wait_to_remove(lun, lambda: lun not in self._known_by_others(), "another engine serves it")
            self._wait_to_remove(lun, lambda: self._is_mine(lun), "its last owner does not release it")
            with hold_lock(self._hba_lock):
                self._disks.pop(lun, None)
                try:
                    if lun in self._ownership.known:
                        self._luns.remove(lun)
                    else:
                        self._luns.clear(lun)
                finally:
                    self._announce()

    def _wait_to_remove(self, lun: int, condition: Callable[[], bool], obstacle: str) -> None:
        deadline = time.monotonic() + _RELEASE_PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise InUseError(f"LUN {lun} of HBA {self.id} cannot be removed: {obstacle}")
            time.sleep(_RELEASE_PAUSE)

    def _is_mine(self, lun: int) -> bool:
        """Take over a LUN that this engine knows; True if it does not know it."""
        return lun not in self._ownership.known or self._ownership.take_over(lun)

    def leave(self, lun: int) -> None:
        """Forget a LUN that another engine goes on serving.

        Raises:
            UsageError: This engine does not know the LUN, or no other engine does.
        """
        with self._holding(lun):
            self._check_known(lun)
            if lun not in self._known_by_others():
                raise UsageError(f"no other engine of HBA {self.id} knows LUN {lun}", cure="remove it")
            self._ownership.leave(lun)
            self._disks.pop(lun, None)
            self._announce()

    def resize(self, lun: int, size: int) -> bool:
        """Change the size of a LUN's lowest layer to `size` bytes, and have Linux rescan the disk.

        Returns:
            Whether this engine owns the LUN. If not, its owner must be asked as well.

        Raises:
            UsageError: This engine does not know the LUN, or it would shrink.
            HostError, OSError: The kernel or the storage refuses; the size is unchanged.
        """
        with self._holding(lun):
            self._check_known(lun)
            owned = self._ownership.resize(lun, size)
            self._note_disk(lun)
        return owned

    def give_up_old(self, lun: int) -> bool:
        """End the commands of a LUN that storage has not answered for some seconds; their senders have gone.

        Waits for nothing, so that it works while a change of the LUN waits for these commands.

        Returns:
            Whether this engine serves the LUN.
        """
        owned = self._ownership.owned.get(lun)
        if owned is None or owned.served is None:
            return False
        owned.served.give_up_old()
        return True

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Change how Linux treats a LUN, while it is in use.

        Raises:
            UsageError: This engine does not know the LUN.
            HostError: The kernel refuses.
        """
        with self._holding(lun):
            self._check_known(lun)
            self._ownership.tune(lun, tuning)

    def _check_known(self, lun: int) -> None:
        if lun not in self._ownership.known:
            raise UsageError(f"this engine of HBA {self.id} does not know LUN {lun}")

    @contextmanager
    def _holding(self, lun: int) -> Iterator[None]:
        """Keep other threads from changing a LUN while the context is entered."""
        with self._changing:
            self._changing.wait_for(lambda: lun not in self._ownership.busy)
            self._ownership.busy.add(lun)
        try:
            yield
        finally:
            with self._changing:
                self._ownership.busy.discard(lun)
                self._changing.notify_all()
            self._balancer.changed()

    # The other engines.

    def _known_by_others(self) -> frozenset[int]:
        """Return the LUNs that other living engines can serve."""
        return frozenset().union(*(engine.luns for engine in self._peers.other_engines))

    def _announce(self) -> None:
        """Tell the other engines which LUNs this one knows."""
        self._peers.announce(frozenset(self._ownership.known))
        self._balancer.changed()

    def _reconcile(self) -> float | None:
        """Release and take over LUNs as they are assigned; return the seconds until the next try is due."""
        with self._changing:
            engines = self._peers.engines
            self._adapt_completions(eldest=min(engines).pid == self._peers.me.pid)
            owners = assign_luns(engines)
            mine = {lun for lun, pid in owners.items() if pid == self._peers.me.pid}
            if not self._ownership.reconcile(mine):
                return _RELEASE_PAUSE
            again = RETRY if self._ownership.failing else None
        for lun in self._ownership.resized():
            with self._holding(lun):
                self._ownership.follow_size(lun)
                if lun in self._disks:
                    self._note_disk(lun)
        return again

    def _adapt_completions(self, *, eldest: bool) -> None:
        """Let the eldest engine choose the CPU for completions: the HBA has one setting for all engines."""
        tell = partial(configfs.set_completion_affinity, self.id) if eldest else None
        self._pump.calls.post(partial(self._pump.adapt_completions, tell))

    def _failed(self, text: str) -> None:
        """Report that a LUN is not served, and have it retried."""
        self._listeners.failed(text)
        self._balancer.changed()

    def _resized(self) -> None:
        """Have a LUN follow the size of its storage."""
        self._balancer.changed()

    def _opened_late(self) -> None:
        """Wake the threads that wait for a LUN whose opening took long."""
        with self._changing:
            self._changing.notify_all()
        self._balancer.changed()

    def _stop_balancer(self) -> None:
        self._ownership.leaving = True
        self._balancer.stop()

    def _leave_hba(self) -> None:
        """Remove the LUNs that no other engine knows, and leave the rest to the others.

        If another engine does not finish its change of the HBA, the kernel's objects stay, as after a crash.
        """
        try:
            with hold_lock(self._hba_lock, patience=_LEAVE_PATIENCE):
                last = not self._peers.other_engines
                self._luns.remove_all(self._known_by_others(), self._peers.leave, last=last)
        except LockedError as error:
            log.error("HBA %d is left unchanged: %s", self.id, error)  # noqa: TRY400 - it says all
            self._peers.leave()

    # Questions.

    @property
    def lost(self) -> bool:
        """Whether every LUN that this engine knows has failed for good."""
        return self._ownership.lost

    @property
    def disks(self) -> list[LinuxDisk]:
        """The disks of the LUNs that this engine knows."""
        return list(self._disks.values())

    def users(self) -> list[str]:
        """Return the users of disks that end with this engine: ``/dev/sda1 is mounted on /mnt``."""
        known_by_others = self._known_by_others()
        going = [disk for disk in self.disks if disk.lun not in known_by_others]
        return [user for disk in going for user in configfs.users_of(disk.device)]

    def status(self) -> dict[str, Any]:
        """Return the status of this engine and its LUNs, ready for JSON."""
        return {
            "hba": self.id,
            "pid": os.getpid(),
            "by": self.by,
            "since": self.since,
            "luns": [self._ownership.status(lun) for lun in sorted(self._ownership.known)],
        }

    def statistics(self) -> list[dict[str, Any]]:
        """Return counters and latencies of the LUNs that this engine serves; see `Ownership.statistics`."""
        return self._ownership.statistics()

    def clear_statistics(self, lun: int) -> bool:
        """Let the statistics of a LUN begin anew; False if this engine does not serve it."""
        return self._ownership.clear_statistics(lun)

    # Actions of layers.

    def actions(self, lun: int) -> dict[str, dict[str, Any]] | None:
        """Return the actions of a LUN's layers; None if this engine does not serve it."""
        owned = self._ownership.owned.get(lun)
        return None if owned is None or owned.actions is None else owned.actions.known()

    def act(
        self,
        lun: int,
        layer: str,
        action: str,
        arguments: Mapping[str, object],
        *,
        force: bool,
        progress: ProgressCallback,
    ) -> dict[str, object]:
        """Run an action of a layer of a LUN.

        It may take long: in the meantime LUNs are added and removed, and this LUN may be released.

        Args:
            lun: Its number.
            layer: Name of the layer's handler.
            action: Name of the action.
            arguments: Arguments of the action.
            force: Run it even if the disk is in use and its content changes.
            progress: Called with ``{"done": n, "of": m}``.

        Returns:
            ``owner``, ``known``, ``result``, ``document`` and ``reread``, as `vscsihba.engine.owner.act`
            takes them.

        Raises:
            UsageError: There is no such action, or the arguments are not valid.
            InUseError: The disk is in use.
            HostError, OSError: The action failed.
        """
        owned, disk = self._ownership.owned.get(lun), self._disks.get(lun)
        if owned is None or (disk is None and owned.spec.local):
            return {"owner": False, "known": lun in self._ownership.known}
        if (actions := owned.actions) is None:
            return {"owner": False, "known": True}
        disturbs = actions.disturbs(layer, action)
        if disturbs and not force:
            _check_unused(disk)
        if disturbs and disk is not None:
            _write_back(disk)
        done = actions.run(layer, action, arguments, lambda done, of: progress({"done": done, "of": of}))
        if done.document is not None:
            owned.take_note(done.document)
        if done.document is not None or done.size is not None:
            self._ownership.reshaped(owned)
        reread = _reread(disk) if disturbs and disk is not None else None
        return {"owner": True, "result": done.result, "document": done.document, "reread": reread}


def _check_unused(disk: LinuxDisk | None) -> None:
    """Refuse a change of the content of a disk that is in use, or that only other computers see.

    Raises:
        InUseError: It is, or may be, in use.
    """
    if disk is None:
        raise InUseError("initiators of exports may use the disk", cure="log out there, then use --force")
    if users := configfs.users_of(disk.device):
        raise InUseError(f"the disk is in use: {'; '.join(users)}", cure="release it first, or use --force")


def _write_back(disk: LinuxDisk) -> None:
    """Write the pages that Linux has not yet written, which would come over the new content afterwards."""
    try:
        configfs.write_back(disk.device)
    except HostError as error:
        log.warning("lun %d: %s", disk.lun, error)


def _reread(disk: LinuxDisk) -> str | None:
    """Have Linux read the partition table again; return the disk if this process may not (CAP_SYS_ADMIN)."""
    try:
        configfs.reread_partitions(disk.device)
    except InUseError as error:
        log.warning("lun %d: %s", disk.lun, error)
    except HostError:
        return str(disk.device)
    return None
