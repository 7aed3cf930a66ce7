"""The service's verbs: what a control socket makes of its requests.

Changes are made one at a time, whoever asks for them; looking waits for nobody. Knows documents
and the order of things; how the machine is changed, `applying` and `supervisor` know.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vscsihba.config.awaited import Awaited
from vscsihba.config.changes import Changes, changes
from vscsihba.config.dump import builtins
from vscsihba.config.load import read, warnings
from vscsihba.config.lun_changes import RemoveLun, ReplaceLun
from vscsihba.config.model import Document
from vscsihba.config.pruning import Prune
from vscsihba.config.stacks import canonical, enlarged
from vscsihba.control import Progress
from vscsihba.daemon.applying import Applying
from vscsihba.daemon.machine import check_machine
from vscsihba.daemon.rates import Rates
from vscsihba.daemon.state import State
from vscsihba.daemon.status import add_unread, status
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.engine import owner
from vscsihba.engine.lun_request import LunRequest
from vscsihba.errors import HostError, InUseError, UsageError, VscsihbaError
from vscsihba.handlers.options import did_you_mean
from vscsihba.handlers.registry import Registry

log = logging.getLogger(__name__)


class Service:
    """What runs, and what may be done with it.

    Args:
        supervisor: The machine.
        state: What is remembered.

    Attributes:
        document: What runs.
        awaited: The saved entries that could not be restored.
    """

    def __init__(self, supervisor: Supervisor, state: State) -> None:
        self.document = Document()
        self.awaited = Awaited()
        self._unnoted: str | None = None
        self._supervisor = supervisor
        self._state = state
        self._changing = threading.Lock()
        self._rates = Rates()
        self._since = time.time()

    def resume(self) -> None:
        """Go on with what an earlier service ran; after a start of the machine, with what was saved.

        A disk that cannot be served is shown as failing and tried again, and so is a saved entry that cannot
        be read; the others are not kept waiting.
        """
        with self._changing:
            running, known = self._running()
            running, cut_off = self._before_cut_off(running)
            saved = self._state.to_restore()
            if running is None:
                document, self.awaited = saved.document, Awaited.of(saved)
            else:
                document, self.awaited = self._earlier_awaited().joined(running, saved)
            for entry in self.awaited.unread:
                log.error("not restored: %s", entry.why)
            self.document = self._supervisor.resume(document, dismiss=known, cut_off=cut_off)
            self._record(nothing_known=running is None and not saved.readable)

    def _running(self) -> tuple[Document | None, bool]:
        """Return what ran, None if that is not known, and whether nothing else runs on our behalf."""
        try:
            return self._state.running(), True
        except VscsihbaError as error:
            log.error("what ran cannot be known, so nothing that runs is taken down: %s", error)  # noqa: TRY400
            return None, False

    def _before_cut_off(self, running: Document | None) -> tuple[Document | None, Document]:
        """Return what is to run where changes were cut off, and what they were to lead to.

        They are taken back, unless all of them had been done.
        """
        try:
            unfinished = self._state.unfinished()
        except VscsihbaError as error:
            log.error("which changes were cut off cannot be known: %s", error)  # noqa: TRY400 - it says all
            return running, Document()
        if running is None or unfinished is None or unfinished[1] == running:
            return running, Document()
        log.warning("changes were cut off when the service ended, and are taken back")
        return unfinished

    def _earlier_awaited(self) -> Awaited:
        try:
            return self._state.awaited()
        except VscsihbaError as error:
            log.error("which saved entries were not restored cannot be known: %s", error)  # noqa: TRY400
            return Awaited()

    def retry(self) -> None:
        """Try again what has failed: restore saved entries that can be read by now, record what runs.

        Does nothing while something is being changed.
        """
        if not (self.awaited.unread or self._unnoted) or not self._changing.acquire(blocking=False):
            return
        try:
            before = self.document
            document, awaited = self.awaited.joined(before, self._state.to_restore())
            if document != before:
                self._supervisor.restore(document, before)
            self._rates.begin(_places(document) - _places(before))
            self.document = document
            if (document, awaited) != (before, self.awaited) or self._unnoted:
                self.awaited = awaited
                self._record()
        finally:
            self._changing.release()

    def _record(self, *, nothing_known: bool = False) -> None:
        """Note what runs and what is awaited; where that fails, it is tried again later.

        Args:
            nothing_known: What is to run is not known yet, so that nothing may be noted of it.
        """
        try:
            if self.awaited.unread:
                self._state.note_awaited(self.awaited)
            if nothing_known:
                return
            self._note(self.document)
            self._state.note_awaited(self.awaited)
            self._state.end()
        except HostError as error:
            self._unnoted = str(error)
            log.error("what runs cannot be recorded: %s", error)  # noqa: TRY400 - it says all

    def verbs(self) -> dict[str, Callable[..., object]]:
        """Return what may be asked, by name; `vscsihba.daemon.calls` says what of."""
        return {
            "plan": self.plan,
            "apply": self.apply,
            "show": self.show,
            "status": self.status,
            "save": self.save,
            "clear": self.clear,
            "resize": self.resize,
            "act": self.act,
        }

    # Looking.

    def plan(self, document: object, prune: Prune = "named") -> object:
        """Return what `apply` would do."""
        wanted, running = _read(document), self.document
        found = _changes(running, wanted, prune)
        check_machine(found.target, running)
        return _told(found, wanted)

    def show(self) -> object:
        """Return what runs, as a document."""
        return builtins(self.document)

    def status(self) -> object:
        """Return how everything is."""
        found = status(self.document, self._supervisor.crews, self._rates, self._since)
        add_unread(found, self.awaited.unread)
        if self._unnoted is not None:
            found["problems"].append(f"what runs cannot be recorded: {self._unnoted}")
        return found

    # Changing.

    def apply(
        self,
        document: object,
        progress: Progress,
        prune: Prune = "named",
        *,
        replace: bool = False,
        force: bool = False,
        seen: object = None,
    ) -> object:
        """Make it so; with `seen`, only if that is what still runs."""
        wanted = _read(document)
        expected = None if seen is None else _read(seen)
        with self._changing:
            if expected is not None and expected != self.document:
                raise InUseError("somebody else has changed what runs meanwhile", cure="look, and try again")
            found = _changes(self.document, wanted, prune)
            if found.replacing and not replace:
                raise UsageError(
                    f"{found.replacing[0].text}: not while the disk works",
                    cure="say --replace, and the disk goes away and comes back as the other",
                )
            self._make_so(found, progress, force=force)
            ids = {hba.id for hba in wanted.hbas} if prune == "named" else ()
            self._decided(Awaited() if prune == "all" else self.awaited.without(self.document, ids))
            return {**_told(found, wanted), "done": True}

    def save(self, path: str | None = None, *, force: bool = False) -> object:
        """Keep what runs for the next start, or in a file of one's own."""
        with self._changing:
            where = None if path is None else _absolute(path)
            if where is None and self.awaited.unread and not force:
                raise UsageError(
                    f"the saved document has what is not restored: {self.awaited.unread[0].why}",
                    cure="correct it there, or use --force to save without it",
                )
            return {"path": str(self._state.save(self.document, where, force=force))}

    def clear(self, progress: Progress, hba: int | None = None, *, force: bool = False) -> object:
        """Take away an HBA, or all, with LUNs and backstores."""
        with self._changing:
            if hba is not None and self.document.hba(hba) is None and not self._awaits(hba):
                raise UsageError(f"no HBA {hba} is the service's", cure='see "vscsihba status"')
            found = changes(self.document, _without(self.document, hba), prune="all")
            self._make_so(found, progress, force=force)
            self._decided(Awaited() if hba is None else self.awaited.without(self.document, [hba]))
            return {**_told(found, self.document), "removed": [step.text for step in found]}

    def end_when_free(self, hba_id: int) -> None:
        """Have the engines of an HBA end as soon as none of its disks is in use, without this service."""
        self._supervisor.end_when_free(hba_id)

    def resize(self, backstore: str, size: int, progress: Progress) -> object:
        """Enlarge a backstore to `size` bytes."""
        with self._changing:
            known = self.document.backstores
            if backstore not in known:
                raise UsageError(
                    f"there is no backstore {backstore!r}", cure=did_you_mean(backstore, list(known))
                )
            stacks = {**known, backstore: enlarged(backstore, known[backstore], size, Registry())}
            wanted = _read(builtins(msgspec.structs.replace(self.document, backstores=stacks)))
            found = _changes(self.document, wanted, "all")
            self._make_so(found, progress, force=False)
            return {**_told(found, wanted), "backstore": backstore, "size": size}

    def act(
        self,
        *,
        hba: int,
        lun: int,
        layer: str,
        action: str,
        arguments: Mapping[str, object],
        progress: Progress,
        force: bool = False,
    ) -> object:
        """Have a layer of a disk do something; if its stack is another one then, that runs from now on."""
        wanted = owner.Action(hba, lun, layer, action, arguments, force)
        before = self.document
        answer = owner.act(wanted, progress=progress)
        stack = answer.get("document")
        if isinstance(stack, str | dict):
            with self._changing:
                unchanged = self.document is before
                now = canonical(stack, Registry()) if unchanged else self._supervisor.stack_of(hba, lun)
                if now is not None:
                    self._take_note(hba, lun, now)
        return answer

    def _make_so(self, found: Changes, progress: Progress, *, force: bool) -> None:
        """Carry changes out, all of them or none."""
        check_machine(found.target, self.document)
        self._demand_free(found, force=force)
        if not found:
            return
        saved = [entry.backstore for entry in self.awaited.unread if entry.backstore is not None]
        applying = Applying(self.document, self._supervisor, self._note, force=force, made=saved)
        self._note(self.document)  # where nothing can be recorded, nothing is touched
        try:
            self._state.begin(self.document, found.target)
            applying.carry_out(found.steps, progress)
        finally:
            self._finish()

    def _finish(self) -> None:
        """Note that changes have ended; where that fails, it is tried again later."""
        try:
            self._state.end()
        except HostError as error:
            self._unnoted = str(error)
            log.error("what runs cannot be recorded: %s", error)  # noqa: TRY400 - it says all

    def _note(self, document: Document) -> None:
        """Go by a document, and record it.

        Raises:
            HostError: It cannot be recorded; that is tried again later.
        """
        self._rates.begin(_places(document) - _places(self.document))
        self.document = document
        try:
            self._state.note(document)
        except HostError as error:
            self._unnoted = str(error)
            raise
        self._unnoted = None

    def _decided(self, awaited: Awaited) -> None:
        """Await fewer saved entries, as somebody has decided what becomes of the others."""
        if awaited != self.awaited:
            self.awaited = awaited
            self._record()

    def _awaits(self, hba_id: int) -> bool:
        return any(entry.hba == hba_id for entry in self.awaited.unread)

    def _take_note(self, hba_id: int, number: int, stack: dict[str, Any]) -> None:
        """Know what a LUN is made of now.

        Raises:
            HostError: It is, but that cannot be recorded yet.
        """
        hba = self.document.hba(hba_id)
        lun = hba.lun(number) if hba is not None else None
        if lun is None or self.document.backstores[lun.backstore] == stack:
            return
        self._supervisor.describe(hba_id, LunRequest.of(lun, stack))  # or its next engine is refused
        stacks = {**self.document.backstores, lun.backstore: stack}
        try:
            self._note(msgspec.structs.replace(self.document, backstores=stacks))
        except HostError as error:
            raise HostError(f"it is done, but cannot be recorded yet: {error}") from error

    def _demand_free(self, found: Changes, *, force: bool) -> None:
        """Refuse what somebody else serves, and to take away what is in use, before anything is done.

        Raises:
            InUseError: That would happen.
        """
        for hba in found.target.hbas:
            if self.document.hba(hba.id) is None:
                self._supervisor.demand_free(hba.id)
        for step in found.disturbing if not force else ():
            if isinstance(step, RemoveLun | ReplaceLun):
                lun = step.lun if isinstance(step, RemoveLun) else step.old
                if users := self._supervisor.users(step.hba, lun.lun):
                    raise InUseError(f"{step.text}: {users[0]}", cure="end that first, or say --force")


def _places(document: Document) -> set[tuple[int, int]]:
    return {(hba.id, lun.lun) for hba in document.hbas for lun in hba.luns}


def _read(document: object) -> Document:
    return read(document, Path("/"))


def _changes(running: Document, wanted: Document, prune: Prune) -> Changes:
    if prune not in ("named", "all", "none"):
        raise UsageError(f"prune cannot be {prune!r}", cure="use named, all or none")
    return changes(running, wanted, prune=prune)


def _told(found: Changes, wanted: Document) -> dict[str, object]:
    return {"changes": [step.as_json() for step in found], "warnings": warnings(wanted)}


def _without(document: Document, hba_id: int | None) -> Document:
    """Return a document without an HBA and what only that one shows; an empty one without any."""
    if hba_id is None:
        return Document()
    rest = tuple(hba for hba in document.hbas if hba.id != hba_id)
    gone = {lun.backstore for hba in document.hbas if hba.id == hba_id for lun in hba.luns}
    stacks = {name: stack for name, stack in document.backstores.items() if name not in gone}
    return Document(backstores=stacks, hbas=rest)


def _absolute(path: str) -> Path:
    found = Path(path)
    if not found.is_absolute():
        raise UsageError(f"{path!r} is no absolute path", cure="begin it with a slash")
    return found
