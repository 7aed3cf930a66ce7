"""The client side of the running service: one method for each verb of its control socket.

The commands and the shell call these methods. They know the verbs and the form of their answers, not how the
service carries out a request.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypedDict, cast

from vscsihba.config.dump import builtins
from vscsihba.config.model import Document
from vscsihba.config.pruning import Prune
from vscsihba.control.client import NotListeningError, call
from vscsihba.daemon.statistics import LunStatistics
from vscsihba.engine.owner import Action

SOCKET: Final = Path("/run/vscsihba/control.sock")

_PATIENCE: Final = 60.0
"""Seconds for an answer to a request that changes nothing; a change may take any time."""


class Change(TypedDict):
    """One change, as JSON; see `vscsihba.config.change.Change`, which has the other keys too."""

    kind: str
    text: str
    sign: str
    disturbs: bool
    replaces: bool


class Changes(TypedDict):
    """The changes that would be carried out, or were, in order."""

    changes: list[Change]
    warnings: list[str]


class Step(TypedDict):
    """A change that begins: its number, the number of all changes, and its text."""

    step: int
    of: int
    text: str


class EngineStatus(TypedDict):
    """A process that serves an HBA; `since` is its start, in seconds since 1970."""

    pid: int
    state: str
    since: float


class ReservationStatus(TypedDict):
    """A persistent reservation: registered initiators; type and holder, None if nobody holds it."""

    registrants: list[str]
    type: str | None
    holder: str | None


class LunStatus(TypedDict):
    """A logical unit; size in bytes, engine as pid; one that is not local has no device, only exports."""

    lun: int
    backstore: str | None
    local: bool
    device: str | None
    by_id: str | None
    size: int | None
    stack: str | None
    engine: int | None
    iops: float | None
    state: str
    read_only: bool
    reservation: ReservationStatus | None


class HbaStatus(TypedDict):
    """An HBA with its engines and its LUNs."""

    id: int
    engines: list[EngineStatus]
    luns: list[LunStatus]


class ExportLunStatus(TypedDict):
    """A logical unit of an export; its access state is None while it is missing."""

    lun: int
    backstore: str
    read_only: bool
    state: str
    access_state: str | None


class SessionStatus(TypedDict):
    """An initiator that is logged in, and the addresses of its connections."""

    initiator: str
    addresses: list[str]


class ExportStatus(TypedDict):
    """An export with its LUNs and the sessions of its initiators."""

    name: str
    transport: str
    portals: list[str]
    state: str
    luns: list[ExportLunStatus]
    sessions: list[SessionStatus]


class DaemonStatus(TypedDict):
    """The service itself; `since` is its start, in seconds since 1970."""

    pid: int
    since: float


class Status(TypedDict):
    """The state of everything; `daemon` is None if no service runs, `problems` belong to no single LUN."""

    problems: list[str]
    daemon: DaemonStatus | None
    hbas: list[HbaStatus]
    exports: list[ExportStatus]
    others: list[dict[str, Any]]


class Daemon:
    """The running service.

    Every method raises the `UsageError` or `HostError` of the service, and `HostError` if no service runs.

    Args:
        path: Its control socket; by default that of the machine's service.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or SOCKET

    def plan(self, document: Document, *, prune: Prune = "named") -> Changes:
        """Return the changes that `apply` would carry out."""
        arguments = {"document": builtins(document), "prune": prune}
        return cast("Changes", self._call("plan", arguments, timeout=_PATIENCE))

    def apply(
        self,
        document: Document,
        *,
        prune: Prune = "named",
        replace: bool = False,
        force: bool = False,
        seen: Document | None = None,
        progress: Callable[[Step], None] | None = None,
    ) -> Changes:
        """Apply a document and return the changes; if one of them fails, all are undone.

        Args:
            document: The document.
            prune: The entries to remove if the document does not have them.
            replace: Replace disks where a change is not possible while they work.
            force: Remove disks that are in use too.
            seen: The running document that the caller has seen; if another one runs now, nothing is done.
            progress: Called before each step.
        """
        arguments = {
            "document": builtins(document),
            "prune": prune,
            "replace": replace,
            "force": force,
            "seen": None if seen is None else builtins(seen),
        }
        return cast("Changes", self._call("apply", arguments, progress=progress))

    def show(self) -> dict[str, Any]:
        """Return the running document as plain JSON values."""
        return cast("dict[str, Any]", self._call("show", {}, timeout=_PATIENCE))

    def status(self) -> Status:
        """Return the state of all disks, engines and problems."""
        return cast("Status", self._call("status", {}, timeout=_PATIENCE))

    def statistics(self) -> list[LunStatistics]:
        """Return counters and latencies of every LUN that an engine serves."""
        return cast("list[LunStatistics]", self._call("statistics", {}, timeout=_PATIENCE))

    def clear_statistics(self, hba: int, lun: int) -> None:
        """Let the counters and latencies of a LUN begin anew."""
        self._call("clear_statistics", {"hba": hba, "lun": lun}, timeout=_PATIENCE)

    def save(self, path: Path | None = None, *, force: bool = False) -> Path:
        """Save the running document and return the path of the file.

        Args:
            path: An absolute path; by default the file that is restored when the machine starts.
            force: Replace a document by an empty one too.
        """
        arguments = {"path": None if path is None else str(path), "force": force}
        return Path(cast("dict[str, str]", self._call("save", arguments, timeout=_PATIENCE))["path"])

    def clear(self, hba: int | None = None, *, force: bool = False) -> list[str]:
        """Remove an HBA, or all of them, with LUNs and backstores; return the removed objects."""
        answer = cast("dict[str, list[str]]", self._call("clear", {"hba": hba, "force": force}))
        return answer["removed"]

    def resize(self, backstore: str, size: int) -> Any:
        """Enlarge a backstore to `size` bytes while its disk works."""
        return self._call("resize", {"backstore": backstore, "size": size})

    def act(self, wanted: Action, *, progress: Callable[[Any], None] | None = None) -> Any:
        """Run an action of a layer of a disk; see `vscsihba.engine.owner.act`."""
        return self._call("act", asdict(wanted), progress=progress)

    def _call(
        self,
        verb: str,
        arguments: dict[str, Any],
        *,
        timeout: float | None = None,
        progress: Callable[[Any], None] | None = None,
    ) -> object:
        try:
            return call(self._path, verb, arguments, timeout=timeout, progress=progress)
        except NotListeningError as error:
            raise NoDaemonError from error
        except KeyboardInterrupt:
            if timeout is not None:  # changes nothing, or is over at once
                raise
            raise KeyboardInterrupt('the service may continue; see "vscsihba status"') from None


class NoDaemonError(NotListeningError):
    """No service runs."""

    def __init__(self) -> None:
        super().__init__(
            "the service is not running",
            cure='start it: "systemctl start vscsihba", or "vscsihba daemon" in a terminal of its own',
        )
