"""Carrying out changes one after the other: all of them, or, as far as can be, none.

A step that fails has changed nothing; those before it are taken back in reverse. Knows what each
kind of change asks of the machine, and nothing of how that does it.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Protocol

from vscsihba.config.change import Change
from vscsihba.config.frame_changes import AddHba, ChangeBackstore, RemoveHba, SetEngines
from vscsihba.config.lun_changes import AddLun, RemoveLun, ReplaceLun, Resize, TuneLun
from vscsihba.config.model import Document, Lun
from vscsihba.config.sizes import same_but_for_size, size_of, with_size
from vscsihba.engine.appearance import Tuning
from vscsihba.engine.lun_request import LunRequest
from vscsihba.errors import VscsihbaError

log = logging.getLogger(__name__)


class Machine(Protocol):
    """What changes are carried out on. What raises has changed nothing."""

    def add_hba(self, hba_id: int, engines: int) -> None:
        """Put up an HBA without LUNs, served by so many engines."""

    def remove_hba(self, hba_id: int) -> None:
        """Take down an HBA that has no LUNs."""

    def set_engines(self, hba_id: int, engines: int) -> None:
        """Have an HBA served by so many engines."""

    def add_lun(self, hba_id: int, request: LunRequest, *, make: bool) -> None:
        """Put up a new LUN; its medium is made if it is missing and `make` is said."""

    def restore_lun(self, hba_id: int, request: LunRequest) -> None:
        """Put up a LUN again that was taken down; where that fails, it is failing and tried again later."""

    def remove_lun(self, hba_id: int, lun: int, *, force: bool) -> None:
        """Take down a LUN; one that is in use only by force."""

    def enlarge(self, hba_id: int, request: LunRequest, size: int) -> None:
        """Let the lowest layer of a LUN have `size` bytes."""

    def tune(self, hba_id: int, lun: int, tuning: Tuning) -> None:
        """Have Linux treat a LUN otherwise."""

    def describe(self, hba_id: int, request: LunRequest) -> None:
        """Know another description of a LUN that stays the same disk."""


class Applying:
    """Changes on their way from a document to a machine.

    Args:
        document: What runs.
        machine: What it runs on.
        note: Told what runs, after each step.
        force: Also take away disks that are in use.
        made: Names of backstores whose media were made before, though no LUN shows them now.

    Attributes:
        document: What runs by now.
    """

    def __init__(
        self,
        document: Document,
        machine: Machine,
        note: Callable[[Document], None],
        *,
        force: bool = False,
        made: Collection[str] = (),
    ) -> None:
        self.document = document
        self._machine = machine
        self._note = note
        self._force = force
        self._made = made
        self._shown = [document.backstores[lun.backstore] for hba in document.hbas for lun in hba.luns]

    def carry_out(self, steps: Sequence[Change], progress: Callable[[object], None]) -> None:
        """Take all steps; where one fails, take those before it back.

        Args:
            steps: What to do, in this order.
            progress: Told of every step that begins: ``{"step": 1, "of": 3, "text": "..."}``.

        Raises:
            UsageError, HostError: A step failed; what could not be taken back is logged, and stands in
                `document`.
        """
        with ExitStack() as undo:
            for number, step in enumerate(steps, 1):
                progress({"step": number, "of": len(steps), "text": step.text})
                self._take(step)
                undo.callback(self._take_back, step)
                self._note(self.document)
            undo.pop_all()

    def _take(self, step: Change, *, back: bool = False) -> None:
        log.info("%s", step.text)
        after = step.carry_out(self.document)
        self._do(step, after, back=back)
        self.document = after

    def _take_back(self, step: Change) -> None:
        back = step.inverse()
        if not _whole(back.carry_out(self.document)):  # something before it could not be taken back
            return
        try:
            self._take(back, back=True)
        except (VscsihbaError, OSError) as error:
            log.error("cannot take back: %s: %s", step.text, error)  # noqa: TRY400 - it says all
            return
        try:
            self._note(self.document)
        except (VscsihbaError, OSError) as error:
            log.error("taken back, but not recorded: %s: %s", step.text, error)  # noqa: TRY400 - it says all

    def _do(self, step: Change, after: Document, *, back: bool) -> None:  # noqa: C901 - one case a kind
        machine, force = self._machine, self._force or back
        match step:
            case AddHba(hba, engines):
                machine.add_hba(hba, engines)
            case RemoveHba(hba):
                machine.remove_hba(hba)
            case SetEngines(hba, _, new):
                machine.set_engines(hba, new)
            case AddLun(hba, lun) if back:
                machine.restore_lun(hba, _request(after, lun))
            case AddLun(hba, lun):
                self._add(hba, lun, after)
            case RemoveLun(hba, lun):
                machine.remove_lun(hba, lun.lun, force=force)
            case TuneLun(hba, _, tuned):
                machine.tune(hba, tuned.lun, _request(after, tuned).tuning)
            case Resize(hba, number, new_size=size):
                machine.enlarge(hba, _request(after, _lun(after, hba, number)), size)
            case ReplaceLun():
                self._replace(step, after, back=back)
            case ChangeBackstore(name):
                if (place := after.place_of(name)) is not None:
                    machine.describe(place[0], _request(after, _lun(after, *place)))
            case _:  # a backstore that no LUN shows is known, or not
                pass

    def _replace(self, step: ReplaceLun, after: Document, *, back: bool) -> None:
        """Put another LUN in the place of one; the old one comes back if the new one cannot."""
        machine, wanted = self._machine, _request(after, step.new)
        before = _request(self.document, step.old)
        machine.remove_lun(step.hba, step.old.lun, force=self._force or back)
        if back:
            machine.restore_lun(step.hba, wanted)
            return
        with ExitStack() as undo:
            undo.callback(machine.restore_lun, step.hba, before)
            self._add(step.hba, step.new, after)
            undo.pop_all()

    def _add(self, hba_id: int, lun: Lun, after: Document) -> None:
        """Put up a LUN; its medium is made only if no LUN showed it before, and enlarged if one did."""
        machine, wanted = self._machine, _request(after, lun)
        stack = after.backstores[lun.backstore]
        before = next((shown for shown in self._shown if same_but_for_size(stack, shown)), None)
        size = size_of(stack)
        if before is None or size is None or size_of(before) == size:
            machine.add_lun(hba_id, wanted, make=before is None and lun.backstore not in self._made)
            return
        machine.add_lun(hba_id, LunRequest.of(lun, with_size(stack, size_of(before))), make=False)
        with ExitStack() as undo:
            undo.callback(machine.remove_lun, hba_id, lun.lun, force=True)
            machine.enlarge(hba_id, wanted, size)
            undo.pop_all()


def _whole(document: Document) -> bool:
    """Tell whether every LUN has its backstore."""
    return all(lun.backstore in document.backstores for hba in document.hbas for lun in hba.luns)


def _request(document: Document, lun: Lun) -> LunRequest:
    return LunRequest.of(lun, document.backstores[lun.backstore])


def _lun(document: Document, hba_id: int, number: int) -> Lun:
    hba = document.hba(hba_id)
    lun = hba.lun(number) if hba is not None else None
    assert lun is not None, f"no LUN {number} of HBA {hba_id}"  # noqa: S101  # changes come in order
    return lun
