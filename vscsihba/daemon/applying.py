"""Carrying out changes one after the other: all of them, or, as far as can be, none.

A step that fails has changed nothing; those before it are taken back in reverse. Knows what each
kind of change asks of the machine, and nothing of how that does it.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from vscsihba.config.change import Change
from vscsihba.config.frame_changes import AddHba, ChangeBackstore, RemoveHba, SetEngines
from vscsihba.config.lun_changes import AddLun, RemoveLun, ReplaceLun, Resize, TuneLun
from vscsihba.config.model import Document, Lun
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

    def add_lun(self, hba_id: int, request: LunRequest) -> None:
        """Put up a LUN."""

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

    Attributes:
        document: What runs by now.
    """

    def __init__(
        self, document: Document, machine: Machine, note: Callable[[Document], None], *, force: bool = False
    ) -> None:
        self.document = document
        self._machine = machine
        self._note = note
        self._force = force

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
                self._take(step, force=self._force)
                undo.callback(self._take_back, step)
                self._note(self.document)
            undo.pop_all()

    def _take(self, step: Change, *, force: bool) -> None:
        log.info("%s", step.text)
        after = step.carry_out(self.document)
        self._do(step, after, force=force)
        self.document = after

    def _take_back(self, step: Change) -> None:
        back = step.inverse()
        if not _whole(back.carry_out(self.document)):  # something before it could not be taken back
            return
        try:
            self._take(back, force=True)
            self._note(self.document)
        except (VscsihbaError, OSError) as error:
            log.error("cannot take back: %s: %s", step.text, error)  # noqa: TRY400 - it says all

    def _do(self, step: Change, after: Document, *, force: bool) -> None:  # noqa: C901 - one case a kind
        machine = self._machine
        match step:
            case AddHba(hba, engines):
                machine.add_hba(hba, engines)
            case RemoveHba(hba):
                machine.remove_hba(hba)
            case SetEngines(hba, _, new):
                machine.set_engines(hba, new)
            case AddLun(hba, lun):
                machine.add_lun(hba, _request(after, lun))
            case RemoveLun(hba, lun):
                machine.remove_lun(hba, lun.lun, force=force)
            case TuneLun(hba, _, tuned):
                machine.tune(hba, tuned.lun, _request(after, tuned).tuning)
            case Resize(hba, number, new_size=size):
                machine.enlarge(hba, _request(after, _lun(after, hba, number)), size)
            case ReplaceLun():
                self._replace(step, after, force=force)
            case ChangeBackstore(name):
                if (place := after.place_of(name)) is not None:
                    machine.describe(place[0], _request(after, _lun(after, *place)))
            case _:  # a backstore that no LUN shows is known, or not
                pass

    def _replace(self, step: ReplaceLun, after: Document, *, force: bool) -> None:
        """Put another LUN in the place of one; the old one comes back if the new one cannot."""
        before = _request(self.document, step.old)
        self._machine.remove_lun(step.hba, step.old.lun, force=force)
        with ExitStack() as undo:
            undo.callback(self._machine.add_lun, step.hba, before)
            self._machine.add_lun(step.hba, _request(after, step.new))
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
