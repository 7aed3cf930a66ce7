"""The exports of the service: targets of the kernel, kept as the running document describes them.

A change is carried out as a whole or refused. After a restart, and when a change is undone, a LUN whose
backstore is not served yet is left out and added later; the other LUNs do not wait for it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from vscsihba import configfs
from vscsihba.config.export import Export
from vscsihba.config.model import Document
from vscsihba.configfs import ACL_DEFAULTS, Acl, IscsiTarget, Session
from vscsihba.daemon.calls import ExportLunStatus, ExportStatus
from vscsihba.daemon.export_secrets import chap
from vscsihba.daemon.giving_up import giving_up
from vscsihba.errors import HostError, InUseError, VscsihbaError

log = logging.getLogger(__name__)


class Kernel(Protocol):
    """The kernel's targets of one transport."""

    def prepare(self) -> None:
        """Load the kernel's modules; raises HostError if this machine lacks them."""

    def find(self, name: str) -> IscsiTarget | None:
        """Return a target, None if there is none of that name."""

    def change(self, before: IscsiTarget | None, after: IscsiTarget | None) -> None:
        """Create, change or remove a target; a failure changes nothing."""

    def sessions(self, name: str) -> list[Session]:
        """Return the sessions of a target."""

    def has_backstore(self, name: str) -> bool:
        """Return whether a backstore exists."""


class Lio:
    """LIO's iSCSI targets."""

    prepare = staticmethod(configfs.prepare_iscsi)
    find = staticmethod(configfs.find_target)
    change = staticmethod(configfs.change_target)
    sessions = staticmethod(configfs.sessions_of)

    @staticmethod
    def has_backstore(name: str) -> bool:
        """Return whether a backstore exists."""
        try:
            configfs.find_backstore(name)
        except HostError:
            return False
        return True


TRANSPORTS: Final[Mapping[str, Kernel]] = {"iscsi": Lio()}
"""The targets of each transport that a document can name.

Another one needs a row here, its name in `vscsihba.config.export`, and functions such as those of
`vscsihba.configfs.iscsi`.
"""


class Exports:
    """All exports of the service.

    Args:
        transports: The kernel's targets of each transport.
        give_up_old: Ends the commands of a LUN that its storage has not answered for some seconds.

    Attributes:
        failures: Why an export, or a LUN of it, is not there; by the export's name.
        unwanted: Exports of a change that was cut off, which could not be removed yet; by name.
    """

    def __init__(
        self,
        transports: Mapping[str, Kernel] = TRANSPORTS,
        *,
        give_up_old: Callable[[int, int], None] = lambda _hba_id, _lun: None,
    ) -> None:
        self.failures: dict[str, str] = {}
        self.unwanted: dict[str, Export] = {}
        self._give_up_old = give_up_old
        self._transports = transports

    # Changes of a document: as a whole, or not at all.

    def add(self, export: Export, document: Document) -> None:
        """Add an export.

        Args:
            export: The export.
            document: The document that has its backstores.

        Raises:
            InUseError: Another program has a target of that name.
            HostError: The kernel refuses; nothing has changed.
        """
        kernel = self._transports[export.transport]
        kernel.prepare()
        if export.name in self.unwanted:
            self._remove_left(export)
        if kernel.find(export.name) is not None:
            raise InUseError(
                f"another program has created the target {export.name}", cure="choose another name"
            )
        kernel.change(None, _target(export, document))

    def change(self, export: Export, document: Document) -> None:
        """Make the target of an export as the document describes it; arguments and errors as for `add`."""
        self._transports[export.transport].prepare()
        self._change(export, _target(export, document))
        self.failures.pop(export.name, None)

    def remove(self, export: Export) -> None:
        """Remove an export; its sessions end.

        Raises:
            HostError: The kernel refuses.
        """
        self._change(export, None)
        self.failures.pop(export.name, None)

    def users(self, old: Export, new: Export | None = None) -> list[str]:
        """Return the sessions that notice when `old` becomes `new`, or is removed: a line of text each."""
        return [
            f"{session.initiator} is logged in" + _from(session)
            for session in self._transports[old.transport].sessions(old.name)
            if new is None or _notices(session.initiator, old, new)
        ]

    # Restarts, and changes that are undone: as far as possible, and the rest later.

    def resume(self, document: Document, cut_off: Document) -> None:
        """Bring the kernel's targets in line with a document after a restart.

        Args:
            document: The running document.
            cut_off: The target of a change that was cut off; exports that only it has are removed.
        """
        for export in cut_off.exports:
            if document.export(export.name) is None:
                self.unwanted[export.name] = export
                self._try(export, partial(self._remove_left, export))
        for export in document.exports:
            self.restore(export, document)

    def restore(self, export: Export, document: Document) -> None:
        """Bring a target in line with the document as far as possible; `retry` does the rest."""
        self._try(export, partial(self._restore, export, document))

    def retry(self, document: Document) -> None:
        """Add the exports and LUNs that are missing so far, and remove the exports that are not wanted."""
        for left in list(self.unwanted.values()):
            self._try(left, partial(self._remove_left, left))
        for name in self.failures.keys() - self.unwanted.keys():
            export = document.export(name)
            if export is None:
                del self.failures[name]
            else:
                self.restore(export, document)

    def _try(self, export: Export, act: Callable[[], None]) -> None:
        try:
            act()
        except (VscsihbaError, OSError) as error:
            if self.failures.get(export.name) != str(error):
                log.error("export %s: %s", export.name, error)  # noqa: TRY400 - it says all
            self.failures[export.name] = str(error)
        else:
            self.failures.pop(export.name, None)

    def _remove_left(self, export: Export) -> None:
        if self._transports[export.transport].find(export.name) is not None:
            log.warning("export %s is removed: a change was interrupted", export.name)
            self._change(export, None)
        del self.unwanted[export.name]

    def _restore(self, export: Export, document: Document) -> None:
        kernel = self._transports[export.transport]
        kernel.prepare()
        wanted = _target(export, document)
        missing = {lun for lun, name in wanted.luns.items() if not kernel.has_backstore(name)}
        self._change(export, _without(wanted, missing))
        if missing:
            numbers = ", ".join(map(str, sorted(missing)))
            raise HostError(f"LUN {numbers} is not there, since its disk is not served")

    def _change(self, export: Export, after: IscsiTarget | None) -> None:
        """Change a target; commands that hold that up because their storage does not answer are ended.

        The kernel waits for the commands of a session or a LUN before it lets it go.
        """
        kernel = self._transports[export.transport]
        before = kernel.find(export.name)
        with ExitStack() as stack:
            if before is not None and before != after:
                stack.enter_context(giving_up(before.luns.values(), self._give_up_old))
            kernel.change(before, after)

    # The status.

    def status(self, document: Document) -> Iterator[ExportStatus]:
        """Yield the state of each export of the running document."""
        for export in document.exports:
            kernel = self._transports[export.transport]
            found = kernel.find(export.name)
            failure = self.failures.get(export.name)
            state = "missing" if found is None else "running"
            yield {
                "name": export.name,
                "transport": export.transport,
                "portals": list(export.portals),
                "state": state if failure is None else f"failing: {failure}",
                "luns": list(_lun_states(export, found)),
                "sessions": [
                    {"initiator": session.initiator, "addresses": list(session.addresses)}
                    for session in (kernel.sessions(export.name) if found is not None else [])
                ],
            }


def _lun_states(export: Export, found: IscsiTarget | None) -> Iterator[ExportLunStatus]:
    for lun in export.luns:
        yield {
            "lun": lun.lun,
            "backstore": lun.backstore,
            "read_only": export.read_only(lun),
            "state": "running" if found is not None and lun.lun in found.luns else "missing",
            "access_state": None if found is None or lun.lun not in found.luns else found.state(lun.lun),
        }


def _from(session: Session) -> str:
    return f" from {', '.join(session.addresses)}" if session.addresses else ""


def _notices(initiator: str, old: Export, new: Export) -> bool:
    """Return whether an initiator that is logged in loses something when `old` becomes `new`."""
    before, after = _seen(initiator, old), _seen(initiator, new)
    return after is None or bool((before or set()) - after) or bool(set(old.portals) - set(new.portals))


def _seen(initiator: str, export: Export) -> set[tuple[int, str]] | None:
    """Return the LUNs that an initiator sees, with their backstores; None if it may not log in."""
    entry = next((each for each in export.initiators if each.name == initiator), None)
    if entry is None and not export.open:
        return None
    numbers = entry.luns if entry is not None else None
    return {(lun.lun, lun.backstore) for lun in export.luns if numbers is None or lun.lun in numbers}


def _target(export: Export, document: Document) -> IscsiTarget:
    """Return the kernel's target of an export.

    Raises:
        UsageError: A secret cannot be used.
        HostError: A backstore is not shown by an HBA.
    """
    luns = {lun.lun: _backstore(lun.backstore, document) for lun in export.luns}
    acls = {}
    for initiator in export.initiators:
        seen = luns.keys() if initiator.luns is None else luns.keys() & set(initiator.luns)
        acls[initiator.name] = Acl(
            {lun.lun: export.read_only(lun) for lun in export.luns if lun.lun in seen},
            chap(initiator.user, initiator.password_file),
            chap(initiator.mutual_user, initiator.mutual_password_file),
            _settings(
                ACL_DEFAULTS,
                {
                    "attrib/nopin_timeout": export.nopin_timeout,
                    "attrib/nopin_response_timeout": export.nopin_response_timeout,
                },
            ),
        )
    target = IscsiTarget(
        export.name,
        frozenset(export.portals),
        luns,
        acls,
        open=export.open,
        write_protected=any(export.read_only(lun) for lun in export.luns) or not export.luns,
        states={lun.lun: lun.state for lun in export.luns if lun.state != "active"},
    )
    given = {
        "attrib/default_cmdsn_depth": export.cmdsn_depth,
        "param/HeaderDigest": export.header_digest,
        "param/DataDigest": export.data_digest,
    }
    return replace(target, settings=_settings(target.settings, given))


def _settings(defaults: Mapping[str, str], given: Mapping[str, int | str | None]) -> dict[str, str]:
    """Return values by file: those that a document gives, and the kernel's own."""
    return {**defaults, **{file: str(value) for file, value in given.items() if value is not None}}


def _backstore(name: str, document: Document) -> str:
    place = document.place_of(name)
    if place is None:
        raise HostError(f"no HBA shows the backstore {name}")
    return configfs.backstore_name(*place)


def _without(target: IscsiTarget, missing: Iterable[int]) -> IscsiTarget:
    """Return a target without some of its LUNs."""
    gone = set(missing)
    acls = {
        name: replace(acl, luns={lun: value for lun, value in acl.luns.items() if lun not in gone})
        for name, acl in target.acls.items()
    }
    luns = {lun: name for lun, name in target.luns.items() if lun not in gone}
    states = {lun: state for lun, state in target.states.items() if lun not in gone}
    return replace(target, luns=luns, acls=acls, states=states)
