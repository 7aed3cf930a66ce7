"""The verbs of the service's control socket.

Changes are made one at a time; requests that change nothing never wait for them. Knows documents; the
changes of the machine are `vscsihba.daemon.transaction` and `vscsihba.daemon.supervisor`.
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
from vscsihba.config.export_changes import ReduceExport, RemoveExport
from vscsihba.config.load import read, warnings
from vscsihba.config.lun_changes import RemoveLun, ReplaceLun
from vscsihba.config.model import Document
from vscsihba.config.pruning import Prune
from vscsihba.config.stacks import canonical, enlarged
from vscsihba.control import ProgressCallback
from vscsihba.daemon.export_checks import check_exports
from vscsihba.daemon.exports import Exports
from vscsihba.daemon.known_devices import accepted
from vscsihba.daemon.preflight import check_machine
from vscsihba.daemon.rates import Rates
from vscsihba.daemon.refused_logins import RefusedLogins
from vscsihba.daemon.state import RecordError, State
from vscsihba.daemon.statistics import clear_statistics, statistics
from vscsihba.daemon.status import add_exports, add_unread, status
from vscsihba.daemon.stuck_sessions import StuckSessions
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.daemon.transaction import Transaction
from vscsihba.engine import owner
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import HostError, InUseError, UsageError, VscsihbaError
from vscsihba.handlers.options import did_you_mean
from vscsihba.handlers.registry import Registry

log = logging.getLogger(__name__)


class Service:
    """The running document, and the verbs that read and change it.

    Args:
        supervisor: The HBAs of this machine.
        exports: The exports of this machine.
        state: The documents on disk.

    Attributes:
        document: The running document.
        awaited: The saved entries that could not be restored.
    """

    def __init__(self, supervisor: Supervisor, state: State, exports: Exports | None = None) -> None:
        self.document = Document()
        self.awaited = Awaited()
        self._unrecorded: str | None = None
        self._supervisor = supervisor
        self._exports = exports or Exports(give_up_old=supervisor.give_up_old)
        self._stuck_sessions = StuckSessions(supervisor.give_up_old)
        self._refused_logins = RefusedLogins()
        self._state = state
        self._changing = threading.Lock()
        self._rates = Rates()
        self._since = time.time()

    def resume(self) -> None:
        """Serve the document of an earlier service; after a start of the machine, the saved one.

        A disk that cannot be served and a saved entry that cannot be read are shown as failing and retried;
        the others do not wait for them.

        Raises:
            RecordError: A record of the earlier service cannot be read now; its engines go on.
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
            self.document = self._supervisor.resume(document, remove_others=known, cut_off=cut_off)
            self._exports.resume(self.document, cut_off)
            self._record(unknown=running is None and not saved.readable)

    def _running(self) -> tuple[Document | None, bool]:
        """Return the document that ran, and whether that is certain; None if nothing ran or it is lost."""
        try:
            return self._state.running(), True
        except RecordError:
            raise
        except VscsihbaError as error:
            log.error("the record of the running document cannot be read, so no disk is removed: %s", error)  # noqa: TRY400
            return None, False

    def _before_cut_off(self, running: Document | None) -> tuple[Document | None, Document]:
        """Return the document before a change that was cut off, and the target of that change.

        Such a change is undone, unless all of its steps had been done.
        """
        try:
            unfinished = self._state.unfinished()
        except RecordError:
            raise
        except VscsihbaError as error:
            log.error("the record of an unfinished change cannot be read: %s", error)  # noqa: TRY400 - it says all
            return running, Document()
        if running is None or unfinished is None or unfinished[1] == running:
            return running, Document()
        log.warning("the service ended during a change, which is undone now")
        return unfinished

    def _earlier_awaited(self) -> Awaited:
        try:
            return self._state.awaited()
        except RecordError:
            raise
        except VscsihbaError as error:
            log.error("the record of entries that were not restored cannot be read: %s", error)  # noqa: TRY400
            return Awaited()

    def retry(self) -> None:
        """Restore saved entries that can be read now, and record the running document if that has failed.

        Also remove what an interrupted change has left. Does nothing during a change, but look at the
        sessions of exports.
        """
        self._stuck_sessions.look(self.document)
        self._refused_logins.look(self.document)
        due = (
            self.awaited.unread
            or self._unrecorded
            or self._supervisor.is_unfinished
            or self._exports.failures
            or self._exports.unwanted
        )
        if not due or not self._changing.acquire(blocking=False):
            return
        try:
            self._supervisor.retry()
            before, unwanted = self.document, bool(self._exports.unwanted)
            document, awaited = self.awaited.joined(before, self._state.to_restore())
            if document != before:
                self._supervisor.restore(document, before)
            self._rates.begin(_places(document) - _places(before))
            self.document = document
            self._exports.retry(document)
            for export in document.exports:
                if before.export(export.name) != export:
                    self._exports.restore(export, document)
            settled = unwanted and not self._exports.unwanted
            if (document, awaited) != (before, self.awaited) or self._unrecorded or settled:
                self.awaited = awaited
                self._record()
        finally:
            self._changing.release()

    def _record(self, *, unknown: bool = False) -> None:
        """Record the running document and the awaited entries; a failure is retried later.

        Args:
            unknown: The document to run is not known yet, so do not record it.
        """
        try:
            if self.awaited.unread:
                self._state.note_awaited(self.awaited)
            if unknown:
                return
            self._note(self.document)
            self._state.note_awaited(self.awaited)
            if not self._exports.unwanted:  # the next service has to know of them too
                self._state.end()
        except HostError as error:
            self._unrecorded = str(error)
            log.error("the running configuration cannot be recorded: %s", error)  # noqa: TRY400 - it says all

    def verbs(self) -> dict[str, Callable[..., object]]:
        """Return the verbs by name; `vscsihba.daemon.calls` has their arguments and answers."""
        return {
            "plan": self.plan,
            "apply": self.apply,
            "show": self.show,
            "status": self.status,
            "statistics": statistics,
            "clear_statistics": clear_statistics,
            "save": self.save,
            "clear": self.clear,
            "resize": self.resize,
            "act": self.act,
        }

    # Verbs that change nothing.

    def plan(self, document: object, prune: Prune = "named") -> object:
        """Return the changes that `apply` would carry out."""
        wanted, running = _read(document), self.document
        planned = _changes(running, wanted, prune)
        check_machine(planned.target, running)
        check_exports(planned.target, running)
        return _report(planned, wanted)

    def show(self) -> object:
        """Return the running document."""
        return builtins(self.document)

    def status(self) -> object:
        """Return the state of all disks, engines and problems."""
        now = status(self.document, self._supervisor.hbas, self._rates, self._since)
        add_unread(now, self.awaited.unread)
        add_exports(now, self._exports.status(self.document))
        if self._unrecorded is not None:
            now["problems"].append(f"the running configuration cannot be recorded: {self._unrecorded}")
        return now

    # Verbs that change something.

    def apply(
        self,
        document: object,
        progress: ProgressCallback,
        prune: Prune = "named",
        *,
        replace: bool = False,
        force: bool = False,
        seen: object = None,
    ) -> object:
        """Apply a document; with `seen`, only if that is still the running document."""
        wanted = _read(document)
        expected = None if seen is None else _read(seen)
        with self._changing:
            if expected is not None and expected != self.document:
                raise InUseError(
                    "another program has changed the configuration meanwhile", cure="check it, and try again"
                )
            planned = _changes(self.document, wanted, prune)
            if planned.replacing and not replace:
                raise UsageError(
                    f"{planned.replacing[0].text}: not possible while the disk is attached",
                    cure="use --replace: the disk is detached and recreated",
                )
            self._carry_out(planned, progress, force=force)
            self._accept_devices(wanted)
            named = prune == "named"
            awaited = self.awaited.without(
                self.document,
                {hba.id for hba in wanted.hbas} if named else (),
                {export.name for export in wanted.exports} if named else (),
            )
            self._await_only(Awaited() if prune == "all" else awaited)
            return {**_report(planned, wanted), "done": True}

    def save(self, path: str | None = None, *, force: bool = False) -> object:
        """Save the running document for the next start of the machine, or in a file that the caller names."""
        with self._changing:
            where = None if path is None else _absolute(path)
            if where is None and self.awaited.unread and not force:
                raise UsageError(
                    f"the saved document has entries that were not restored: {self.awaited.unread[0].why}",
                    cure="correct it there, or use --force to save without it",
                )
            return {"path": str(self._state.save(self.document, where, force=force))}

    def clear(self, progress: ProgressCallback, hba: int | None = None, *, force: bool = False) -> object:
        """Remove an HBA, or all of them, with LUNs and backstores."""
        with self._changing:
            if hba is not None and self.document.hba(hba) is None and not self._awaits(hba):
                raise UsageError(f"HBA {hba} is not managed by the service", cure='see "vscsihba status"')
            planned = changes(self.document, _without(self.document, hba), prune="all")
            self._carry_out(planned, progress, force=force)
            self._await_only(Awaited() if hba is None else self.awaited.without(self.document, [hba]))
            return {**_report(planned, self.document), "removed": [step.text for step in planned]}

    def end_exports(self) -> None:
        """Remove all exports; their sessions end, and the running document keeps them."""
        for export in self.document.exports:
            try:
                self._exports.remove(export)
            except (VscsihbaError, OSError) as error:
                log.warning("export %s: %s", export.name, error)

    def end_when_free(self, hba_id: int) -> None:
        """Tell the engines of an HBA to end as soon as none of its disks is in use."""
        self._supervisor.hbas[hba_id].end_when_free()

    def resize(self, backstore: str, size: int, progress: ProgressCallback) -> object:
        """Enlarge a backstore to `size` bytes."""
        with self._changing:
            known = self.document.backstores
            if backstore not in known:
                raise UsageError(
                    f"there is no backstore {backstore!r}", cure=did_you_mean(backstore, list(known))
                )
            stacks = {**known, backstore: enlarged(backstore, known[backstore], size, Registry())}
            wanted = _read(builtins(msgspec.structs.replace(self.document, backstores=stacks)))
            planned = _changes(self.document, wanted, "all")
            self._carry_out(planned, progress, force=False)
            return {**_report(planned, wanted), "backstore": backstore, "size": size}

    def act(
        self,
        *,
        hba: int,
        lun: int,
        layer: str,
        action: str,
        arguments: Mapping[str, object],
        progress: ProgressCallback,
        force: bool = False,
    ) -> object:
        """Run an action of a layer of a disk; a stack that it changes goes into the running document."""
        wanted = owner.Action(hba, lun, layer, action, arguments, force)
        before = self.document
        answer = owner.act(wanted, progress=progress)
        stack = answer.get("document")
        if isinstance(stack, str | dict):
            with self._changing:
                unchanged = self.document is before
                now = canonical(stack, Registry()) if unchanged else self._supervisor.stack_of(hba, lun)
                if now is not None:
                    self._set_stack(hba, lun, now)
        return answer

    def _carry_out(self, planned: Changes, progress: ProgressCallback, *, force: bool) -> None:
        """Carry out changes, all of them or none."""
        check_machine(planned.target, self.document)
        check_exports(planned.target, self.document)
        self._check_free(planned, force=force)
        if not planned:
            return
        saved = [entry.backstore for entry in self.awaited.unread if entry.backstore is not None]
        transaction = Transaction(
            self.document, self._supervisor, self._note, exports=self._exports, force=force, made=saved
        )
        self._note(self.document)  # if nothing can be recorded, change nothing
        try:
            self._state.begin(self.document, planned.target)
            transaction.carry_out(planned.steps, progress)
        finally:
            self._finish()

    def _finish(self) -> None:
        """Record the end of a change; a failure is retried later."""
        try:
            self._state.end()
        except HostError as error:
            self._unrecorded = str(error)
            log.error("the running configuration cannot be recorded: %s", error)  # noqa: TRY400 - it says all

    def _note(self, document: Document) -> None:
        """Make a document the running one and record it.

        Raises:
            HostError: It cannot be recorded; that is retried later.
        """
        self._rates.begin(_places(document) - _places(self.document))
        self.document = document
        try:
            self._state.note(document)
        except HostError as error:
            self._unrecorded = str(error)
            raise
        self._unrecorded = None

    def _accept_devices(self, document: Document) -> None:
        """Record the identities of the devices that a document names; a failure is only logged.

        A device that has no record is not checked later, and one whose record is old is refused.
        """
        try:
            self._state.note_devices(accepted(self._state.devices(), document.backstores.values()))
        except HostError as error:
            log.error("the identities of block devices cannot be recorded: %s", error)  # noqa: TRY400 - it says all

    def _await_only(self, awaited: Awaited) -> None:
        """Await only these saved entries; a request has settled the others."""
        if awaited != self.awaited:
            self.awaited = awaited
            self._record()

    def _awaits(self, hba_id: int) -> bool:
        return any(entry.hba == hba_id for entry in self.awaited.unread)

    def _set_stack(self, hba_id: int, number: int, stack: dict[str, Any]) -> None:
        """Put the new stack of a LUN into the running document.

        Raises:
            HostError: It cannot be recorded yet.
        """
        hba = self.document.hba(hba_id)
        lun = hba.lun(number) if hba is not None else None
        if lun is None or self.document.backstores[lun.backstore] == stack:
            return
        self._supervisor.hbas[hba_id].describe(LunSpec.of(lun, stack))  # or its next engine is refused
        stacks = {**self.document.backstores, lun.backstore: stack}
        try:
            self._note(msgspec.structs.replace(self.document, backstores=stacks))
        except HostError as error:
            raise HostError(f"the change is made, but cannot be recorded yet: {error}") from error

    def _check_free(self, planned: Changes, *, force: bool) -> None:
        """Refuse ids that another program serves, and the removal of disks in use, before any change.

        Raises:
            InUseError: An id or a disk is in use.
        """
        for hba in planned.target.hbas:
            if self.document.hba(hba.id) is None:
                self._supervisor.check_id_free(hba.id)
        for step in planned.disturbing if not force else ():
            if isinstance(step, RemoveLun | ReplaceLun):
                lun = step.lun if isinstance(step, RemoveLun) else step.old
                if users := self._supervisor.users(step.hba, lun.lun):
                    raise InUseError(f"{step.text}: {users[0]}", cure="release it first, or use --force")
            if isinstance(step, RemoveExport | ReduceExport):
                new = step.new if isinstance(step, ReduceExport) else None
                old = step.old if isinstance(step, ReduceExport) else step.export
                if users := self._exports.users(old, new):
                    raise InUseError(f"{step.text}: {users[0]}", cure="log out there, or use --force")


def _places(document: Document) -> set[tuple[int, int]]:
    return {(hba.id, lun.lun) for hba in document.hbas for lun in hba.luns}


def _read(document: object) -> Document:
    return read(document, Path("/"))


def _changes(running: Document, wanted: Document, prune: Prune) -> Changes:
    if prune not in ("named", "all", "none"):
        raise UsageError(f"prune cannot be {prune!r}", cure="use named, all or none")
    return changes(running, wanted, prune=prune)


def _report(planned: Changes, wanted: Document) -> dict[str, object]:
    return {"changes": [step.as_json() for step in planned], "warnings": warnings(wanted)}


def _without(document: Document, hba_id: int | None) -> Document:
    """Return a document without an HBA and its backstores; with no HBA given, an empty document."""
    if hba_id is None:
        return Document()
    rest = tuple(hba for hba in document.hbas if hba.id != hba_id)
    gone = {lun.backstore for hba in document.hbas if hba.id == hba_id for lun in hba.luns}
    stacks = {name: stack for name, stack in document.backstores.items() if name not in gone}
    left = [
        export.without({lun.lun for lun in export.luns if lun.backstore in gone})
        for export in document.exports
    ]
    exports = tuple(export for export in left if export.luns or document.export(export.name) == export)
    return Document(backstores=stacks, hbas=rest, exports=exports)


def _absolute(path: str) -> Path:
    absolute = Path(path)
    if not absolute.is_absolute():
        raise UsageError(f"{path!r} is not an absolute path", cure="begin it with a slash")
    return absolute
