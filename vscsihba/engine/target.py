"""An engine of an HBA: first to come, one among others, last to go.

The first puts the HBA up, the last takes it down. In between its LUNs are shared out
among the engines, and taken over when one of them dies.

The order is the kernel's: a LUN is scanned while it is linked, so its ring must be
served before; it is flushed while it is unlinked, so its ring is served until after.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

from vscsihba import configfs
from vscsihba.engine.claim import claim_hba, run_directory, turn
from vscsihba.engine.lun_request import AnotherDiskError, LunRequest
from vscsihba.engine.neighbours import Neighbours
from vscsihba.engine.peers import Peers
from vscsihba.engine.pump import Pump
from vscsihba.engine.reports import Reports
from vscsihba.engine.share import share_out
from vscsihba.engine.tenure import Tenure
from vscsihba.errors import HostError, InUseError, VscsihbaError

log = logging.getLogger(__name__)

__all__ = ["Disk", "LunRequest", "Target"]

_CHANGED, _END = "changed", "end"

_RETRY = 0.05
"""Seconds between looks at a LUN whose last owner has not let go yet."""


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
    """One HBA served by this process, alone or with others, while the context is entered.

    Args:
        hba_id: 0..255.
        requests: The LUNs that this engine knows.
        reports: Who is told of commands, failures and events.

    Raises:
        UsageError: A stack or a number cannot be meant; nothing was changed.
        HostError: This machine lacks something; all that was done is undone.
    """

    def __init__(self, hba_id: int, requests: Sequence[LunRequest], *, reports: Reports) -> None:
        self.disks: list[Disk] = []
        self._id = hba_id
        self._known = {request.lun: request for request in requests}
        self._reports = reports
        self._run = run_directory(hba_id)
        self._turn = self._run / "turn.lock"
        self._created: set[int] = set()
        self._owned: dict[int, Tenure] = {}
        self._events: SimpleQueue[str] = SimpleQueue()
        self._balancer = threading.Thread(target=self._balance, name="balancer", daemon=True)
        self._pump = Pump()
        self._neighbours = Neighbours()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        for request in self._known.values():
            request.build().check()
        configfs.prepare()
        with ExitStack() as undo:
            undo.enter_context(claim_hba(self._id, shared=True))
            self._pump.start(f"hba{self._id}")
            undo.callback(self._pump.stop)
            self._peers = Peers(self._run, frozenset(self._known), partial(self._events.put, _CHANGED))
            undo.callback(self._leave)
            with turn(self._turn):
                self._put_up()
                self._peers.join()
            self._created = set(self._known)  # from now on, what nobody else knows goes with us
            self._balancer.start()
            undo.callback(self._balancer.join)
            undo.callback(self._events.put, _END)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def users(self) -> list[str]:
        """Return what will lose a disk when this engine leaves: ``/dev/sda1 is mounted on /mnt``."""
        elsewhere = self._elsewhere()
        going = [disk for disk in self.disks if disk.lun not in elsewhere]
        return [user for disk in going for user in configfs.users_of(disk.device)]

    # Up.

    def _put_up(self) -> None:
        """Complete what is missing of the HBA; own its LUNs unless others are there to be asked.

        With no living engine, what one that died has left is gone on with, or cleared away if it is not
        what is wanted and nobody uses it.
        """
        others = self._peers.find()
        try:
            self._assemble(others)
        except AnotherDiskError:
            if others:
                raise
            while self._owned:
                self._owned.popitem()[1].close()
            configfs.clear_hba(self._id)
            self._assemble(others)

    def _assemble(self, others: list[int]) -> None:
        observed = configfs.observe()
        if self._id in observed.foreign:
            raise InUseError(f"id={self._id} is somebody else's target", cure="choose another id")
        hba = observed.hbas.get(self._id)
        there = {number for number, lun in hba.luns.items() if lun.complete} if hba else set()
        self._mention_unknown(there)
        for lun in sorted(self._known.keys() & there):
            if not self._known[lun].agrees(self._run):
                raise AnotherDiskError(self._id, lun)
        missing = self._known.keys() - there
        for lun, request in self._known.items():
            if lun in missing or not others:
                self._own(request)
        configfs.create_hba(self._id)
        for lun in sorted(missing):
            if hba and lun in hba.luns:  # its making was cut short
                configfs.unlink_lun(self._id, lun, served=False)
            configfs.link_lun(self._id, lun, configfs.backstore_name(self._id, lun))
        self.disks = [self._disk(lun) for lun in self._known]

    def _mention_unknown(self, there: set[int]) -> None:
        unknown = ", ".join(map(str, sorted(there - self._known.keys())))
        if unknown:
            self._reports.notice(f"id={self._id} also has LUN {unknown}, which this engine does not know")

    def _tenure(self, request: LunRequest) -> Tenure:
        return Tenure(
            self._id,
            request,
            self._run,
            pump=self._pump,
            reports=self._reports,
            neighbours=self._neighbours,
        )

    def _own(self, request: LunRequest) -> None:
        """Become the owner of a LUN that no living engine owns.

        Raises:
            InUseError: One does.
        """
        tenure = self._tenure(request)
        if not tenure.open():
            raise InUseError(f"LUN {request.lun} of id={self._id} is owned by another engine")
        self._owned[request.lun] = tenure
        if tenure.created:
            self._created.add(request.lun)

    def _disk(self, lun: int) -> Disk:
        disk = configfs.wait_for_lun(self._id, lun).disk
        if disk is None:
            raise HostError(f"Linux made no disk of LUN {lun}", cure="see dmesg; is the module sd_mod there?")
        sectors = int((Path("/sys/class/block") / disk.name / "size").read_text())
        return Disk(lun, disk, sectors * 512)

    # While it is up.

    def _balance(self) -> None:
        """Own what this engine is to own, whenever an engine has come or gone."""
        settled = self._settle()
        while True:
            try:
                if self._events.get(timeout=None if settled else _RETRY) == _END:
                    return
            except Empty:
                pass
            settled = self._settle()

    def _settle(self) -> bool:
        """Give up and take over LUNs as the others expect; False if one is not free yet."""
        shares = share_out(self._peers.members)
        mine = {lun for lun, pid in shares.items() if pid == self._peers.me.pid}
        for lun in sorted(self._owned.keys() - mine):
            self._owned.pop(lun).close()
        settled = [self._take_over(self._known[lun]) for lun in sorted(mine)]
        return all(settled)

    def _take_over(self, request: LunRequest) -> bool:
        """Try to own a LUN; False if its owner has not let go yet, or it cannot be served now."""
        if request.lun in self._owned:
            return True
        tenure = self._tenure(request)
        try:
            opened = tenure.open()
        except InUseError:  # the last owner's descriptors are being closed
            return False
        except (VscsihbaError, OSError) as error:
            self._reports.failed(f"lun {request.lun}: {error}")
            return True
        if opened:
            self._owned[request.lun] = tenure
        return opened

    # Down.

    def _elsewhere(self) -> frozenset[int]:
        """Return the LUNs that another living engine can serve."""
        return frozenset().union(*(member.luns for member in self._peers.others))

    def _leave(self) -> None:
        """Leave the LUNs that others know to them and remove the rest, and the HBA if it is then empty.

        Steps are done from the last to the first, all of them even if one fails.
        """
        with turn(self._turn), ExitStack() as steps:
            observed = configfs.observe()
            hba = observed.hbas.get(self._id)
            there = set(hba.luns) if hba else set()
            going = self._created - self._elsewhere()
            for lun in going:
                steps.callback(self._forget, lun)
                name = configfs.backstore_name(self._id, lun)
                if name in observed.backstores:
                    steps.callback(configfs.delete_backstore, name)
            if hba is not None and not there - going:
                steps.callback(configfs.delete_hba, self._id)
            for lun in going & self._owned.keys():
                steps.callback(self._owned[lun].close)
            for lun in going & there:
                steps.callback(configfs.unlink_lun, self._id, lun, served=lun in self._owned)
            steps.callback(self._peers.leave)
            for lun in self._owned.keys() - going:
                steps.callback(self._owned[lun].close)

    def _forget(self, lun: int) -> None:
        """Remove what stood in the run directory for a LUN."""
        self._known[lun].forget(self._run)
        for leftover in (self._run / f"lun{lun}.journal", self._run / f"lun{lun}.lock"):
            leftover.unlink(missing_ok=True)
