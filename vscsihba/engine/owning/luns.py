"""The LUNs of an HBA in the kernel: an engine creates and removes them, one by one or all together.

The kernel sets the order. Linux scans a LUN while it is linked, so its ring must be served before that;
Linux flushes a LUN while it is unlinked, so its ring is served until after that.

Knows nothing of the other engines: its caller says what they know, and lets one thread in at a time.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vscsihba import configfs
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.ownership import Ownership
from vscsihba.engine.owning.tuning import tune
from vscsihba.errors import HostError, InUseError


@dataclass(frozen=True, slots=True)
class LinuxDisk:
    """The device that Linux has for a LUN.

    Attributes:
        lun: Its number on the HBA.
        device: ``/dev/sdX``; ``/dev/sgN`` of a unit that is not a disk.
        size: Bytes; 0 of a unit that is not a disk.
    """

    lun: int
    device: Path
    size: int


class Luns:
    """Creates and removes the LUNs of an HBA in the kernel.

    Args:
        hba_id: 0..255.
        run: The HBA's run directory.
        ownership: The LUNs that this engine knows and owns.
        notice: Called with a line of text for the user.

    Attributes:
        ownership: The same.
    """

    def __init__(
        self, hba_id: int, run: Path, ownership: Ownership, *, notice: Callable[[str], None]
    ) -> None:
        self._id = hba_id
        self._run = run
        self.ownership = ownership
        self._notice = notice

    # All of them, when the engine starts.

    def create_all(self, other_engines: list[int]) -> None:
        """Create the HBA and the known LUNs that the kernel lacks; own all if there is no other engine.

        Without another engine, LUNs of a dead engine are adopted. Where one of them is another disk than
        the known one, the HBA is removed, unless it is in use, and created anew.

        Args:
            other_engines: The pids of the engines that serve the HBA already.

        Raises:
            UsageError: An existing LUN is another disk.
            HostError: The kernel refuses, or another process owns a LUN or the HBA.
        """
        try:
            self._create_all(other_engines)
        except AnotherDiskError:
            if other_engines:
                raise
            while self.ownership.owned:
                self.ownership.owned.popitem()[1].close()
            configfs.clear_hba(self._id)
            self._create_all(other_engines)

    def _create_all(self, other_engines: list[int]) -> None:
        observed = configfs.observe()
        if self._id in observed.foreign:
            raise InUseError(f"HBA {self._id} was created by another program", cure="choose another id")
        hba = observed.hbas.get(self._id)
        existing = {number for number, lun in hba.luns.items() if lun.complete} if hba else set()
        known = self.ownership.known
        self._mention_unknown(existing)
        for lun in sorted(known.keys() & existing):
            if not known[lun].agrees(self._run):
                raise AnotherDiskError(self._id, lun)
        missing = known.keys() - existing
        served_here = [lun for lun in known if lun in missing or not other_engines]
        for lun in served_here:
            self.ownership.own(known[lun], make=lun in missing)
        configfs.create_hba(self._id)
        for lun in sorted(missing):
            self._link(known[lun], half_made=hba is not None and lun in hba.luns)
        for lun in served_here:
            tune(self._id, lun, known[lun].tuning)

    def _mention_unknown(self, existing: set[int]) -> None:
        unknown = ", ".join(map(str, sorted(existing - self.ownership.known.keys())))
        if unknown and self.ownership.known:  # an engine that knows no LUN yet will be told of them
            self._notice(f"HBA {self._id} also has LUN {unknown}, which this engine does not know")

    # One of them.

    def add(self, spec: LunSpec, *, known_by_others: bool, make: bool = False) -> None:
        """Add a LUN to the known ones; adopt it if the kernel has it, create it if not.

        Args:
            spec: The LUN.
            known_by_others: Another living engine knows it.
            make: Its storage may be created if it is missing: the LUN has never been served.

        Raises:
            UsageError: The LUN exists and is another disk, or its stack is not valid.
            HostError: The kernel or the storage refuses; nothing has changed.
        """
        existing = configfs.find_lun(self._id, spec.lun)
        known = self.ownership.known
        make = make and not known_by_others and spec.lun not in known
        if spec.lun in known:
            if not known[spec.lun].as_noted(self._run).is_like(spec):
                raise AnotherDiskError(self._id, spec.lun)
            if existing is not None and existing.complete:
                known[spec.lun] = spec
                return
            self._forget_removed(spec.lun)
            existing = None
        if existing is None or not existing.complete:
            self._create(spec, half_made=existing is not None, make=make)
        elif not known_by_others:
            self._adopt(spec, make=make)
        elif not spec.agrees(self._run):
            raise AnotherDiskError(self._id, spec.lun)
        known[spec.lun] = spec
        self.ownership.created.add(spec.lun)
        tune(self._id, spec.lun, spec.tuning)

    def _forget_removed(self, lun: int) -> None:
        """Forget a LUN that another program has removed from the kernel, perhaps with the HBA."""
        if lun in self.ownership.owned:
            self.ownership.owned.pop(lun).close()
        self.ownership.leave(lun)
        self.clear(lun)
        configfs.create_hba(self._id)

    def _create(self, spec: LunSpec, *, half_made: bool, make: bool) -> None:
        with ExitStack() as undo:
            self.ownership.own(spec, make=make)
            undo.callback(spec.forget, self._run)
            undo.callback(configfs.delete_backstore, configfs.backstore_name(self._id, spec.lun))
            undo.callback(lambda: self.ownership.owned.pop(spec.lun).close())
            self._link(spec, half_made=half_made)
            undo.pop_all()

    def _adopt(self, spec: LunSpec, *, make: bool) -> None:
        """Own a LUN that a dead engine has left; create it anew if it is another disk that is not in use."""
        try:
            self._own_same(spec)
        except AnotherDiskError:
            if users := configfs.users_of_lun(self._id, spec.lun):
                raise InUseError(
                    f"LUN {spec.lun} of HBA {self._id} is a leftover with different backing storage,"
                    f" but {users[0]}",
                    cure="detach it there first",
                ) from None
            self.clear(spec.lun)
            self._create(spec, half_made=False, make=make)

    def _own_same(self, spec: LunSpec) -> None:
        if not spec.agrees(self._run):
            raise AnotherDiskError(self._id, spec.lun)
        self.ownership.own(spec)

    def _link(self, spec: LunSpec, *, half_made: bool) -> None:
        """Show a LUN that is served to Linux, if it is local."""
        if half_made:  # its creation was interrupted
            configfs.unlink_lun(self._id, spec.lun, served=False)
        if spec.local:
            configfs.link_lun(self._id, spec.lun, configfs.backstore_name(self._id, spec.lun))

    def disk(self, lun: int) -> LinuxDisk | None:
        """Return the device of a LUN as soon as Linux has one; None if the LUN is not local.

        Raises:
            HostError: Linux has none in time (`vscsihba.configfs.node_timeout`).
        """
        spec = self.ownership.known.get(lun)
        if spec is not None and not spec.local:
            return None
        disk = configfs.wait_for_lun(self._id, lun).disk
        size = Path("/sys/class/block") / disk.name / "size"
        return LinuxDisk(lun, disk, int(size.read_text()) * 512 if size.exists() else 0)

    def remove(self, lun: int) -> None:
        """Remove a LUN that no other living engine knows, even if it is in use.

        All steps are taken, even if one of them fails.

        Raises:
            HostError: The kernel refuses a step.
        """
        linked = configfs.find_lun(self._id, lun) is not None
        with ExitStack() as steps:
            steps.callback(self.ownership.leave, lun)
            self._push_removal(steps, lun, linked=linked, present=_exists(self._id, lun))

    def _push_removal(self, steps: ExitStack, lun: int, *, linked: bool, present: bool) -> None:
        """Push the steps that remove a LUN onto `steps`, which takes the last one first."""
        owned = self.ownership.owned.get(lun)
        steps.callback(self._forget, lun)
        if present:
            steps.callback(configfs.delete_backstore, configfs.backstore_name(self._id, lun))
        if owned is not None:
            steps.callback(owned.close)
        if linked:
            served = owned is not None and owned.answers
            steps.callback(configfs.unlink_lun, self._id, lun, served=served)

    def _forget(self, lun: int) -> None:
        """Remove the files of a LUN from the run directory."""
        self.ownership.owned.pop(lun, None)
        for kind in ("json", "journal", "unflushed", "stats", "lock"):
            (self._run / f"lun{lun}.{kind}").unlink(missing_ok=True)

    def clear(self, lun: int) -> None:
        """Remove the rest of a LUN that no process serves; its waiting commands fail.

        Raises:
            HostError: The kernel refuses.
        """
        if configfs.find_lun(self._id, lun) is not None:
            configfs.unlink_lun(self._id, lun, served=False)
        if _exists(self._id, lun):
            configfs.delete_backstore(configfs.backstore_name(self._id, lun))
        self._forget(lun)

    # All of them, when the engine ends.

    def remove_all(
        self, known_by_others: frozenset[int], hand_over: Callable[[], None], *, last: bool
    ) -> None:
        """Hand over the LUNs that other engines know, and remove the rest; the last engine removes the HBA.

        Steps are taken from the last to the first, all of them even if one fails. An HBA that still has LUNs
        is not removed.

        Args:
            known_by_others: The LUNs that other living engines know.
            hand_over: Tells the other engines that this one serves none of their LUNs any longer.
            last: There is no other engine.

        Raises:
            HostError: The kernel refuses a step, or the storage of a removed LUN does not answer.
        """
        self.ownership.wait_for_releases()
        observed = configfs.observe()
        hba = observed.hbas.get(self._id)
        existing = set(hba.luns) if hba else set()
        owned = self.ownership.owned
        removed = self.ownership.created - known_by_others
        closed = [owned[lun] for lun in sorted(removed & owned.keys())]
        with ExitStack() as steps:
            if last and hba is not None and not existing - removed:
                steps.callback(configfs.delete_hba, self._id)
            for lun in removed:
                present = configfs.backstore_name(self._id, lun) in observed.backstores
                self._push_removal(steps, lun, linked=lun in existing, present=present)
            steps.callback(hand_over)
            for lun in owned.keys() - removed:
                steps.callback(owned[lun].close)
        hanging = ", ".join(str(lun.spec.lun) for lun in closed if not lun.ended)
        if hanging:
            raise HostError(
                f"the storage of LUN {hanging} of HBA {self._id} does not answer: unfinished writes are lost"
            )


def _exists(hba_id: int, lun: int) -> bool:
    """Return whether the kernel has the backstore of a LUN."""
    try:
        configfs.find_backstore(configfs.backstore_name(hba_id, lun))
    except HostError:
        return False
    return True
