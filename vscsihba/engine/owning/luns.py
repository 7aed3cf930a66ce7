"""The LUNs of an HBA as an engine puts them up and takes them down, one or all of them.

The order is the kernel's: a LUN is scanned while it is linked, so its ring must be
served before; it is flushed while it is unlinked, so its ring is served until after.

Who else is there it is told, and when to act too; its caller lets one thread in at a time.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vscsihba import configfs
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.owning.ownership import Ownership
from vscsihba.engine.owning.tuning import tune
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.errors import HostError, InUseError


@dataclass(frozen=True, slots=True)
class LinuxDisk:
    """A logical unit, as Linux sees it.

    Attributes:
        lun: Its number on the HBA.
        device: ``/dev/sdX``; ``/dev/sgN`` of what is no disk.
        size: Bytes; 0 of what is no disk.
    """

    lun: int
    device: Path
    size: int


class Luns(Ownership):
    """What this engine knows and owns of an HBA, and has put up.

    Attributes:
        created: What is removed when nobody else knows it any more.
    """

    def __init__(self, hba_id: int, run: Path, *, pump: Pump, listeners: Listeners) -> None:
        super().__init__(hba_id, run, pump=pump, listeners=listeners)
        self.created: set[int] = set()

    # All of them, at the beginning.

    def put_up(self, others: list[int]) -> None:
        """Complete what is missing of the HBA; own its LUNs unless others are there to be asked.

        With no living engine, what one that died has left is gone on with, or cleared away if it is not
        what is wanted and nobody uses it.

        Args:
            others: The pids of the engines that are there.

        Raises:
            UsageError: A LUN that is there is another disk.
            HostError: The kernel refuses, or somebody else owns a LUN or the HBA.
        """
        try:
            self._assemble(others)
        except AnotherDiskError:
            if others:
                raise
            while self.owned:
                self.owned.popitem()[1].close()
            configfs.clear_hba(self._id)
            self._assemble(others)

    def _assemble(self, others: list[int]) -> None:
        observed = configfs.observe()
        if self._id in observed.foreign:
            raise InUseError(f"id={self._id} is somebody else's target", cure="choose another id")
        hba = observed.hbas.get(self._id)
        there = {number for number, lun in hba.luns.items() if lun.complete} if hba else set()
        self._mention_unknown(there)
        for lun in sorted(self.known.keys() & there):
            if not self.known[lun].agrees(self._run):
                raise AnotherDiskError(self._id, lun)
        missing = self.known.keys() - there
        for lun, spec in self.known.items():
            if lun in missing or not others:
                self._own(spec, make=lun in missing)
        configfs.create_hba(self._id)
        for lun in sorted(missing):
            self._link(lun, half_made=hba is not None and lun in hba.luns)
        for lun, spec in self.known.items():
            if lun in missing or not others:
                tune(self._id, lun, spec.tuning)

    def _mention_unknown(self, there: set[int]) -> None:
        unknown = ", ".join(map(str, sorted(there - self.known.keys())))
        if unknown and self.known:  # one that knows none will be told
            self._listeners.notice(f"id={self._id} also has LUN {unknown}, which this engine does not know")

    # One of them.

    def add(self, spec: LunSpec, *, known_by_others: bool, make: bool = False) -> None:
        """Know a LUN, and have it in the kernel: adopted if it is there, made if it is not.

        Args:
            spec: The LUN.
            known_by_others: Another living engine knows it.
            make: Its medium may be made if it is missing, as nobody has served the LUN before.

        Raises:
            UsageError: It is there and another disk, or its stack cannot be meant.
            HostError: Machine or medium refuse; nothing has changed.
        """
        there = configfs.find_lun(self._id, spec.lun)
        make = make and not known_by_others and spec.lun not in self.known
        if spec.lun in self.known:
            if not self.known[spec.lun].as_noted(self._run).is_like(spec):
                raise AnotherDiskError(self._id, spec.lun)
            if there is not None and there.complete:
                self.known[spec.lun] = spec
                return
            self._forget_gone(spec.lun)
            there = None
        if there is None or not there.complete:
            self._make(spec, half_made=there is not None, make=make)
        elif not known_by_others:
            self._adopt(spec, make=make)
        elif not spec.agrees(self._run):
            raise AnotherDiskError(self._id, spec.lun)
        self.known[spec.lun] = spec
        self.created.add(spec.lun)
        tune(self._id, spec.lun, spec.tuning)

    def _forget_gone(self, lun: int) -> None:
        """Let go of a LUN that another program has removed from the kernel, perhaps with the HBA."""
        if lun in self.owned:
            self.owned.pop(lun).close()
        self.leave(lun)
        self.clear(lun)
        configfs.create_hba(self._id)

    def _make(self, spec: LunSpec, *, half_made: bool, make: bool) -> None:
        with ExitStack() as undo:
            self._own(spec, make=make)
            undo.callback(spec.forget, self._run)
            undo.callback(configfs.delete_backstore, configfs.backstore_name(self._id, spec.lun))
            undo.callback(lambda: self.owned.pop(spec.lun).close())
            self._link(spec.lun, half_made=half_made)
            undo.pop_all()

    def _adopt(self, spec: LunSpec, *, make: bool) -> None:
        """Go on with a LUN that nobody alive knows; make it anew if it is another disk and nobody uses it."""
        try:
            self._own_noted(spec)
        except AnotherDiskError:
            if users := configfs.users_of_lun(self._id, spec.lun):
                raise InUseError(
                    f"LUN {spec.lun} of id={self._id} is left over and another disk, but {users[0]}",
                    cure="detach it there first",
                ) from None
            self.clear(spec.lun)
            self._make(spec, half_made=False, make=make)

    def _link(self, lun: int, *, half_made: bool) -> None:
        if half_made:  # its making was cut short
            configfs.unlink_lun(self._id, lun, served=False)
        configfs.link_lun(self._id, lun, configfs.backstore_name(self._id, lun))

    def disk(self, lun: int) -> LinuxDisk:
        """Return a LUN as Linux sees it, as soon as it does.

        Raises:
            HostError: It does not in time (`vscsihba.configfs.node_timeout`).
        """
        disk = configfs.wait_for_lun(self._id, lun).disk
        size = Path("/sys/class/block") / disk.name / "size"
        return LinuxDisk(lun, disk, int(size.read_text()) * 512 if size.exists() else 0)

    def remove(self, lun: int) -> None:
        """Take a LUN down that no other living engine knows, whoever uses it.

        All is done that can be done, even if a part of it fails.

        Raises:
            HostError: The kernel refuses a part of it.
        """
        linked = configfs.find_lun(self._id, lun) is not None
        with ExitStack() as steps:
            steps.callback(self.leave, lun)
            self._push_removal(steps, lun, linked=linked, present=_exists(self._id, lun))

    def _push_removal(self, steps: ExitStack, lun: int, *, linked: bool, present: bool) -> None:
        """Put on `steps` what removes a LUN; they are done from the last to the first."""
        steps.callback(self._forget, lun)
        if present:
            steps.callback(configfs.delete_backstore, configfs.backstore_name(self._id, lun))
        if lun in self.owned:
            steps.callback(self.owned[lun].close)
        if linked:
            answers = lun in self.owned and self.owned[lun].answers
            steps.callback(configfs.unlink_lun, self._id, lun, served=answers)

    def _forget(self, lun: int) -> None:
        """Remove what stood in the run directory for a LUN."""
        self.owned.pop(lun, None)
        for kind in ("json", "journal", "unflushed", "lock"):
            (self._run / f"lun{lun}.{kind}").unlink(missing_ok=True)

    def clear(self, lun: int) -> None:
        """Remove what is left of a LUN that nobody serves; what waits for it fails.

        Raises:
            HostError: The kernel refuses.
        """
        if configfs.find_lun(self._id, lun) is not None:
            configfs.unlink_lun(self._id, lun, served=False)
        if _exists(self._id, lun):
            configfs.delete_backstore(configfs.backstore_name(self._id, lun))
        self._forget(lun)

    def leave(self, lun: int) -> None:
        """Know a LUN no longer that another engine knows: its commands wait for that one."""
        super().leave(lun)
        self.created.discard(lun)

    def _take(self, owned: OwnedLun) -> None:
        """Note that this engine is the owner, and perhaps the maker."""
        super()._take(owned)
        if owned.created:
            self.created.add(owned.spec.lun)

    # All of them, at the end.

    def depart(self, known_by_others: frozenset[int], farewell: Callable[[], None], *, last: bool) -> None:
        """Leave the LUNs that others know to them and remove the rest; the last takes an empty HBA down too.

        Steps are done from the last to the first, all of them even if one fails.

        Args:
            known_by_others: What other living engines know.
            farewell: Lets the others know that this engine serves no longer what they know too.
            last: There are no others.

        Raises:
            HostError: The kernel refuses a part of it, or something is lost: the storage of a LUN that
                goes does not answer.
        """
        self.await_leavers()
        observed = configfs.observe()
        hba = observed.hbas.get(self._id)
        there = set(hba.luns) if hba else set()
        going = self.created - known_by_others
        ended = [self.owned[lun] for lun in sorted(going & self.owned.keys())]
        with ExitStack() as steps:
            if last and hba is not None and not there - going:
                steps.callback(configfs.delete_hba, self._id)
            for lun in going:
                present = configfs.backstore_name(self._id, lun) in observed.backstores
                self._push_removal(steps, lun, linked=lun in there, present=present)
            steps.callback(farewell)
            for lun in self.owned.keys() - going:
                steps.callback(self.owned[lun].close)
        hanging = ", ".join(str(owned.spec.lun) for owned in ended if not owned.ended)
        if hanging:
            raise HostError(
                f"the storage of LUN {hanging} of id={self._id} does not answer: what it was sent is lost"
            )


def _exists(hba_id: int, lun: int) -> bool:
    """Tell whether the backstore of a LUN is there."""
    try:
        configfs.find_backstore(configfs.backstore_name(hba_id, lun))
    except HostError:
        return False
    return True
