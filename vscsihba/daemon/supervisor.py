"""The machine as the service keeps it: a crew of engines for each HBA.

Carries out what `vscsihba.daemon.applying` asks for. Engines are started, found again after an
earlier life of the service, and let go; they go on without it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from vscsihba import configfs
from vscsihba.config.model import Document, Hba, StackDocument
from vscsihba.daemon.crew import Crew
from vscsihba.daemon.engine import Engine
from vscsihba.daemon.meanwhile import changed_meanwhile, served_stacks
from vscsihba.daemon.roster import Member
from vscsihba.engine.appearance import Tuning
from vscsihba.engine.claim import RUN, holder_of
from vscsihba.engine.lun_request import LunRequest
from vscsihba.errors import InUseError, VscsihbaError

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""HBAs that are gone on with at once: one whose storage does not answer keeps not all others waiting."""

_NOTHING: Final = Document()


class Supervisor:
    """The crews of all HBAs.

    Args:
        start: Starts an engine for an HBA.
        find: Returns the engines of an HBA that are there.
        run: Where engines leave their marks.
    """

    def __init__(
        self,
        start: Callable[[int], Member] = Engine.start,
        find: Callable[[int], Sequence[Member]] = Engine.find,
        run: Path = RUN,
    ) -> None:
        self._crews: dict[int, Crew] = {}
        self._start = start
        self._find = find
        self._run = run

    @property
    def crews(self) -> Mapping[int, Crew]:
        """The crew of each HBA, by id."""
        return dict(self._crews)

    def resume(self, document: Document, *, dismiss: bool = True, cut_off: Document = _NOTHING) -> Document:
        """Go on with what is to run, as far as that goes: engines that live are adopted, others started.

        Args:
            document: What is to run.
            dismiss: What is there besides was being made or removed when an earlier service ended, and goes;
                False where that is not known.
            cut_off: What changes were to lead to that are taken back.

        Returns:
            What is to run, with what has been changed while no service ran.
        """
        stacks = dict(document.backstores)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            resume = partial(self._resume, document, dismiss=dismiss, cut_off=cut_off)
            for changed in pool.map(resume, document.hbas):
                stacks |= changed
        for hba_id in sorted(self._marks() - self._crews.keys()) if dismiss else ():
            if found := self._found(hba_id):
                self._dismiss(hba_id, found)
        return msgspec.structs.replace(document, backstores=stacks)

    def restore(self, document: Document, before: Document) -> None:
        """Put up the LUNs that a document has besides those before; what fails is tried again later."""
        for hba in document.hbas:
            if hba.id not in self._crews:
                self._resume(document, hba, dismiss=False)
                continue
            there = before.hba(hba.id)
            for number, request in _requests(hba, document.backstores).items():
                if there is None or there.lun(number) is None:
                    self._crews[hba.id].restore(request)

    def stack_of(self, hba_id: int, lun: int) -> StackDocument | None:
        """Return what a LUN is made of, as the engine that serves it says; None if none says so."""
        crew = self._crews.get(hba_id)
        return None if crew is None else served_stacks(crew.members).get(lun)

    def _resume(
        self, document: Document, hba: Hba, *, dismiss: bool, cut_off: Document = _NOTHING
    ) -> dict[str, StackDocument]:
        found = self._found(hba.id)
        changed = changed_meanwhile(document, hba, found, cut_off)
        crew = Crew(hba.id, hba.engines, self._start, found)
        self._crews[hba.id] = crew
        crew.resume(_requests(hba, {**document.backstores, **changed}), dismiss=dismiss)
        return changed

    def _found(self, hba_id: int) -> Sequence[Member]:
        """Return the engines of an HBA that are there; none where they cannot be looked for."""
        try:
            return self._find(hba_id)
        except (VscsihbaError, OSError) as error:
            log.error("the engines of HBA %d cannot be found: %s", hba_id, error)  # noqa: TRY400 - it says all
            return []

    def _marks(self) -> set[int]:
        """Return the ids of HBAs that engines have left marks of."""
        names = (path.name.removeprefix("hba") for path in self._run.glob("hba*"))
        return {int(name) for name in names if name.isdecimal()}

    def _dismiss(self, hba_id: int, found: Sequence[Member]) -> None:
        """Have engines end that serve an HBA which is not to be."""
        log.warning("HBA %d was being made, or removed, and goes", hba_id)
        crew = Crew(hba_id, len(found), self._start, found)
        crew.resume({})
        try:
            crew.end()
        except VscsihbaError as error:
            log.error("HBA %d stays: %s", hba_id, error)  # noqa: TRY400 - it says all
            crew.close()

    def close(self) -> None:
        """Let go of all engines: they go on."""
        while self._crews:
            self._crews.popitem()[1].close()

    # What changes ask for.

    def add_hba(self, hba_id: int, engines: int) -> None:
        """Put up an HBA without LUNs.

        Raises:
            InUseError: Somebody else serves that id.
            HostError: Its engines cannot be started.
        """
        self.demand_free(hba_id)
        crew = Crew(hba_id, engines, self._start)
        crew.begin()
        self._crews[hba_id] = crew

    def demand_free(self, hba_id: int) -> None:
        """Refuse an id that another program serves.

        Raises:
            InUseError: One does.
        """
        holder = holder_of(hba_id, self._run)
        if holder is not None:
            pid, name = holder
            raise InUseError(
                f"HBA {hba_id} is served by {name or 'process'} {pid}, not by the service",
                cure="choose another id, or end that process",
            )

    def remove_hba(self, hba_id: int) -> None:
        """Take down an HBA that has no LUNs.

        Raises:
            HostError: One of its engines does not end.
        """
        self._crews[hba_id].end()
        del self._crews[hba_id]

    def end_when_free(self, hba_id: int) -> None:
        """Have the engines of an HBA end as soon as none of its disks is in use; see `Crew.end_when_free`."""
        self._crews[hba_id].end_when_free()

    def set_engines(self, hba_id: int, engines: int) -> None:
        """Have an HBA served by so many engines; see `Crew.set_size`."""
        self._crews[hba_id].set_size(engines)

    def add_lun(self, hba_id: int, request: LunRequest, *, make: bool) -> None:
        """Put up a LUN; see `Crew.add`."""
        self._crews[hba_id].add(request, make=make)

    def restore_lun(self, hba_id: int, request: LunRequest) -> None:
        """Put up a LUN again that was taken down; see `Crew.restore`."""
        self._crews[hba_id].restore(request)

    def remove_lun(self, hba_id: int, lun: int, *, force: bool) -> None:
        """Take down a LUN; see `Crew.remove`."""
        self._crews[hba_id].remove(lun, force=force)

    def enlarge(self, hba_id: int, request: LunRequest, size: int) -> None:
        """Let a LUN grow; see `Crew.enlarge`."""
        self._crews[hba_id].enlarge(request, size)

    def tune(self, hba_id: int, lun: int, tuning: Tuning) -> None:
        """Have Linux treat a LUN otherwise; see `Crew.tune`."""
        self._crews[hba_id].tune(lun, tuning)

    def describe(self, hba_id: int, request: LunRequest) -> None:
        """Know another description of a LUN; see `Crew.describe`."""
        self._crews[hba_id].describe(request)

    def users(self, hba_id: int, lun: int) -> list[str]:
        """Return who uses a LUN's disk, in words."""
        return configfs.users_of_lun(hba_id, lun)


def _requests(hba: Hba, stacks: Mapping[str, StackDocument]) -> dict[int, LunRequest]:
    return {lun.lun: LunRequest.of(lun, stacks[lun.backstore]) for lun in hba.luns}
