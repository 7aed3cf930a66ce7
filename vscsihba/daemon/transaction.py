"""A list of changes, carried out one after the other: all of them or none.

A step that fails has changed nothing; the steps before it are undone in reverse order. Knows the call that
each kind of change stands for, and nothing of how the call works.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from vscsihba.config.change import Change
from vscsihba.config.export import Export
from vscsihba.config.export_changes import AddExport, ChangeExport, ReduceExport, RemoveExport
from vscsihba.config.frame_changes import AddHba, ChangeBackstore, RemoveHba, SetEngines
from vscsihba.config.lun_changes import AddLun, RemoveLun, ReplaceLun, Resize, TuneLun
from vscsihba.config.model import Document, Lun
from vscsihba.config.sizes import same_but_for_size, size_of, with_size
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import VscsihbaError

log = logging.getLogger(__name__)


class Hba(Protocol):
    """The changes of an HBA's LUNs; a method that raises has changed nothing."""

    def set_size(self, size: int) -> None:
        """Change the number of engines."""

    def add(self, spec: LunSpec, *, make: bool) -> None:
        """Add a new LUN; `make` allows its missing storage to be created."""

    def restore(self, spec: LunSpec) -> None:
        """Add a LUN again that was removed; a failure is recorded and retried later."""

    def remove(self, lun: int, *, force: bool) -> None:
        """Remove a LUN; one that is in use only with `force`."""

    def enlarge(self, spec: LunSpec, size: int) -> None:
        """Enlarge the lowest layer of a LUN to `size` bytes."""

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Change the initiator's settings of a LUN."""

    def describe(self, spec: LunSpec) -> None:
        """Replace the description of a LUN that stays the same disk."""


class HbaManager(Protocol):
    """The HBAs that changes are carried out on; a method that raises has changed nothing."""

    @property
    def hbas(self) -> Mapping[int, Hba]:
        """The HBAs, by id."""

    def add_hba(self, hba_id: int, engines: int) -> None:
        """Add an HBA without LUNs, served by `engines` processes."""

    def remove_hba(self, hba_id: int) -> None:
        """Remove an HBA that has no LUNs."""


class ExportManager(Protocol):
    """The exports that changes are carried out on; a method that raises has changed nothing."""

    def add(self, export: Export, document: Document) -> None:
        """Add an export of a document."""

    def change(self, export: Export, document: Document) -> None:
        """Make an export as the document describes it."""

    def remove(self, export: Export) -> None:
        """Remove an export."""

    def restore(self, export: Export, document: Document) -> None:
        """Make an export as the document describes it, as far as possible; the rest is retried later."""


class Transaction:
    """Changes that lead a machine from one document to another.

    Args:
        document: The running document.
        machine: The HBAs.
        note: Called with the running document after each step.
        exports: The exports.
        force: Also remove disks that are in use.
        made: Names of backstores whose storage exists already, though no LUN shows them now.

    Attributes:
        document: The running document after the steps so far.
    """

    def __init__(
        self,
        document: Document,
        machine: HbaManager,
        note: Callable[[Document], None],
        *,
        exports: ExportManager,
        force: bool = False,
        made: Collection[str] = (),
    ) -> None:
        self.document = document
        self._machine = machine
        self._exports = exports
        self._note = note
        self._force = force
        self._made = made
        self._shown = [document.backstores[lun.backstore] for hba in document.hbas for lun in hba.luns]

    def carry_out(self, steps: Sequence[Change], progress: Callable[[object], None]) -> None:
        """Carry out all steps; if one fails, undo those before it.

        Args:
            steps: The changes, in order.
            progress: Called before each step with ``{"step": 1, "of": 3, "text": "..."}``.

        Raises:
            UsageError, HostError: A step failed. A step that could not be undone is logged, and stays in
                `document`.
        """
        with ExitStack() as undo:
            for number, step in enumerate(steps, 1):
                progress({"step": number, "of": len(steps), "text": step.text})
                self._do(step)
                undo.callback(self._undo, step)
                self._note(self.document)
            undo.pop_all()

    def _do(self, step: Change, *, undoing: bool = False) -> None:
        log.info("%s", step.text)
        after = step.carry_out(self.document)
        self._change_machine(step, after, undoing=undoing)
        self.document = after

    def _undo(self, step: Change) -> None:
        inverse = step.inverse()
        if not _consistent(inverse.carry_out(self.document)):  # a later step could not be undone
            return
        try:
            self._do(inverse, undoing=True)
        except (VscsihbaError, OSError) as error:
            log.error("cannot undo: %s: %s", step.text, error)  # noqa: TRY400 - it says all
            return
        try:
            self._note(self.document)
        except (VscsihbaError, OSError) as error:
            log.error("undone, but not recorded: %s: %s", step.text, error)  # noqa: TRY400 - it says all

    def _change_machine(self, step: Change, after: Document, *, undoing: bool) -> None:  # noqa: C901 - one case a kind
        machine, hbas, force = self._machine, self._machine.hbas, self._force or undoing
        match step:
            case AddHba(hba, engines):
                machine.add_hba(hba, engines)
            case RemoveHba(hba):
                machine.remove_hba(hba)
            case SetEngines(hba, _, new):
                hbas[hba].set_size(new)
            case AddLun(hba, lun) if undoing:
                hbas[hba].restore(_request(after, lun))
            case AddLun(hba, lun):
                self._add(hbas[hba], lun, after)
            case RemoveLun(hba, lun):
                hbas[hba].remove(lun.lun, force=force)
            case TuneLun(hba, _, tuned):
                hbas[hba].tune(tuned.lun, _request(after, tuned).tuning)
            case Resize(hba, number, new_size=size):
                hbas[hba].enlarge(_request(after, _lun(after, hba, number)), size)
            case ReplaceLun(hba):
                self._replace(hbas[hba], step, after, undoing=undoing)
            case ChangeBackstore(name):
                if (place := after.place_of(name)) is not None:
                    hbas[place[0]].describe(_request(after, _lun(after, *place)))
            case _:  # backstores that no LUN shows are in the document only
                self._change_export(step, after, undoing=undoing)

    def _change_export(self, step: Change, after: Document, *, undoing: bool) -> None:
        match step:
            case AddExport(export) | ChangeExport(new=export) | ReduceExport(new=export) if undoing:
                self._exports.restore(export, after)
            case AddExport(export):
                self._exports.add(export, after)
            case ChangeExport(new=export) | ReduceExport(new=export):
                self._exports.change(export, after)
            case RemoveExport(export):
                self._exports.remove(export)
            case _:
                pass

    def _replace(self, hba: Hba, step: ReplaceLun, after: Document, *, undoing: bool) -> None:
        """Replace one LUN by another; the old one is restored if the new one cannot be added."""
        wanted, before = _request(after, step.new), _request(self.document, step.old)
        hba.remove(step.old.lun, force=self._force or undoing)
        if undoing:
            hba.restore(wanted)
            return
        with ExitStack() as undo:
            undo.callback(hba.restore, before)
            self._add(hba, step.new, after)
            undo.pop_all()

    def _add(self, hba: Hba, lun: Lun, after: Document) -> None:
        """Add a LUN; its storage is created only if no LUN showed it before, and enlarged if one did."""
        wanted = _request(after, lun)
        stack = after.backstores[lun.backstore]
        before = next((shown for shown in self._shown if same_but_for_size(stack, shown)), None)
        size = size_of(stack)
        if before is None or size is None or size_of(before) == size:
            hba.add(wanted, make=before is None and lun.backstore not in self._made)
            return
        hba.add(LunSpec.of(lun, with_size(stack, size_of(before))), make=False)
        with ExitStack() as undo:
            undo.callback(hba.remove, lun.lun, force=True)
            hba.enlarge(wanted, size)
            undo.pop_all()


def _consistent(document: Document) -> bool:
    """Return whether every LUN has its backstore, and every LUN of an export a LUN of an HBA behind it."""
    return all(lun.backstore in document.backstores for hba in document.hbas for lun in hba.luns) and all(
        document.place_of(lun.backstore) is not None for export in document.exports for lun in export.luns
    )


def _request(document: Document, lun: Lun) -> LunSpec:
    return LunSpec.of(lun, document.backstores[lun.backstore])


def _lun(document: Document, hba_id: int, number: int) -> Lun:
    hba = document.hba(hba_id)
    lun = hba.lun(number) if hba is not None else None
    assert lun is not None, f"no LUN {number} of HBA {hba_id}"  # noqa: S101  # changes come in order
    return lun
