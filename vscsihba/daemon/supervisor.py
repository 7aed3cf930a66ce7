"""The HBAs of the service, each with its engines.

Starts engines, finds those that an earlier life of the service has started, and releases them; they keep
running without the service. The changes of an HBA's LUNs are `vscsihba.daemon.hba_engines`.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from vscsihba import configfs
from vscsihba.config.model import Document, Hba, StackDocument
from vscsihba.daemon.adoption import Adoption
from vscsihba.daemon.drift import drifted_stacks, served_stacks
from vscsihba.daemon.engine import Engine
from vscsihba.daemon.engine_pool import EngineHandle
from vscsihba.daemon.hba_engines import HbaEngines
from vscsihba.engine.owning.locks import RUN, holder_of
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import InUseError, VscsihbaError

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""HBAs that are resumed in parallel, so that one whose storage does not answer delays few others."""

_NOTHING: Final = Document()


def _linked(hba_id: int) -> Collection[int]:
    """Return the LUNs of an HBA that the kernel has."""
    observed = configfs.observe().hbas.get(hba_id)
    return set() if observed is None else set(observed.luns)


class Supervisor:
    """All HBAs of the service.

    Args:
        start: Starts an engine for an HBA.
        find: Returns the engines of an HBA that run.
        run: The run directory of the engines.
        check: Refuses a LUN with HostError when it is served again, such as after a restart.
        linked: Returns the LUNs of an HBA that the kernel has.
    """

    def __init__(
        self,
        start: Callable[[int], EngineHandle] = Engine.start,
        find: Callable[[int], Sequence[EngineHandle]] = Engine.find,
        run: Path = RUN,
        check: Callable[[LunSpec], None] = lambda _request: None,
        linked: Callable[[int], Collection[int]] = _linked,
    ) -> None:
        self._hbas: dict[int, HbaEngines] = {}
        self._unwanted: dict[int, str] = {}
        self._start = start
        self._find = find
        self._run = run
        self._check = check
        self._linked = linked

    @property
    def hbas(self) -> Mapping[int, HbaEngines]:
        """The engines of each HBA, by id."""
        return dict(self._hbas)

    def resume(
        self, document: Document, *, remove_others: bool = True, cut_off: Document = _NOTHING
    ) -> Document:
        """Serve a document after a restart: adopt engines that run, start the others.

        Args:
            document: The disks to serve.
            remove_others: Remove HBAs and LUNs that the document does not have: leftovers of a change that
                was cut off. False where the last document is not known.
            cut_off: The target of a change that was cut off and is undone.

        Returns:
            The document, with the changes that engines have made while no service ran.
        """
        stacks = dict(document.backstores)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            resume = partial(self._resume, document, remove_others=remove_others, cut_off=cut_off)
            for drifted in pool.map(resume, document.hbas):
                stacks |= drifted
        if remove_others:
            self._unwanted = dict.fromkeys(sorted(self._run_directories() - self._hbas.keys()), "")
            self.retry()
        return msgspec.structs.replace(document, backstores=stacks)

    def restore(self, document: Document, before: Document) -> None:
        """Add the LUNs that a document has in addition to `before`; those that fail are retried later."""
        for hba in document.hbas:
            if hba.id not in self._hbas:
                self._resume(document, hba, remove_others=False)
                continue
            earlier = before.hba(hba.id)
            for number, spec in _specs(hba, document.backstores).items():
                if earlier is None or earlier.lun(number) is None:
                    self._hbas[hba.id].restore(spec)

    def stack_of(self, hba_id: int, lun: int) -> StackDocument | None:
        """Return the stack of a LUN as its owning engine reports it; None if no engine does."""
        hba = self._hbas.get(hba_id)
        return None if hba is None else served_stacks(hba.engines).get(lun)

    def _resume(
        self, document: Document, hba: Hba, *, remove_others: bool, cut_off: Document = _NOTHING
    ) -> dict[str, StackDocument]:
        start, running = self._start, list[EngineHandle]()
        try:
            running += self._find(hba.id)
        except (VscsihbaError, OSError) as error:
            log.error("the engines of HBA %d cannot be found: %s", hba.id, error)  # noqa: TRY400 - it says all
            start = Adoption(self._find, self._start, hba.engines)
        drifted = drifted_stacks(document, hba, running, cut_off)
        linked = partial(self._linked, hba.id)
        engines = HbaEngines(hba.id, hba.engines, start, running, self._check, linked=linked)
        self._hbas[hba.id] = engines
        engines.resume(_specs(hba, {**document.backstores, **drifted}), remove_others=remove_others)
        return drifted

    def _run_directories(self) -> set[int]:
        """Return the ids of HBAs that have a run directory."""
        names = (path.name.removeprefix("hba") for path in self._run.glob("hba*"))
        return {int(name) for name in names if name.isdecimal()}

    @property
    def is_unfinished(self) -> bool:
        """Whether engines of an HBA that is not wanted could not be ended yet."""
        return bool(self._unwanted)

    def retry(self) -> None:
        """End the engines of HBAs that are not wanted; those that do not end are left for the next call."""
        for hba_id, before in self._unwanted.items():
            try:
                running = self._find(hba_id)
                if running:
                    self._end_unwanted(hba_id, running)
                self._unwanted = {other: why for other, why in self._unwanted.items() if other != hba_id}
            except (VscsihbaError, OSError) as error:
                if str(error) != before:
                    log.error("HBA %d, which is not wanted, stays: %s", hba_id, error)  # noqa: TRY400
                self._unwanted = {**self._unwanted, hba_id: str(error)}

    def _end_unwanted(self, hba_id: int, running: Sequence[EngineHandle]) -> None:
        """End the engines of an HBA that is not wanted.

        Raises:
            VscsihbaError, OSError: One of them does not end.
        """
        log.warning("HBA %d is removed: a change was interrupted", hba_id)
        engines = HbaEngines(hba_id, len(running), self._start, running)
        with ExitStack() as failing:
            failing.callback(engines.close)
            engines.resume({})
            engines.end()
            failing.pop_all()

    def close(self) -> None:
        """Release all engines; they keep running."""
        while self._hbas:
            self._hbas.popitem()[1].close()

    def add_hba(self, hba_id: int, engines: int) -> None:
        """Add an HBA without LUNs.

        Raises:
            InUseError: Another program serves that id.
            HostError: Its engines cannot be started.
        """
        self.check_id_free(hba_id)
        hba = HbaEngines(hba_id, engines, self._start, check=self._check)
        hba.begin()
        self._hbas[hba_id] = hba
        self._unwanted.pop(hba_id, None)

    def check_id_free(self, hba_id: int) -> None:
        """Refuse an id that another program serves.

        Raises:
            InUseError: Another program serves it.
        """
        holder = holder_of(hba_id, self._run)
        if holder is not None:
            pid, name = holder
            raise InUseError(
                f"HBA {hba_id} is served by {name or 'process'} {pid}, not by the service",
                cure="choose another id, or end that process",
            )

    def remove_hba(self, hba_id: int) -> None:
        """Remove an HBA that has no LUNs.

        Raises:
            HostError: One of its engines does not end.
        """
        self._hbas[hba_id].end()
        del self._hbas[hba_id]

    def give_up_old(self, hba_id: int, lun: int) -> None:
        """End the commands of a LUN that its storage has not answered for some seconds."""
        if (hba := self._hbas.get(hba_id)) is not None:
            hba.give_up_old(lun)

    def users(self, hba_id: int, lun: int) -> list[str]:
        """Return the users of a LUN's disk, a line of text each."""
        return configfs.users_of_lun(hba_id, lun)


def _specs(hba: Hba, stacks: Mapping[str, StackDocument]) -> dict[int, LunSpec]:
    return {lun.lun: LunSpec.of(lun, stacks[lun.backstore]) for lun in hba.luns}
