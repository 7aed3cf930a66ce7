"""What can be asked of the running service: one method for each verb of its control socket.

What the commands and the shell call. Knows the verbs and the shape of their answers, not how
the service does what it is asked.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypedDict, cast

from vscsihba.config.dump import builtins
from vscsihba.config.model import Document
from vscsihba.config.pruning import Prune
from vscsihba.control.client import NobodyListensError, call
from vscsihba.engine.owner import Action

SOCKET: Final = Path("/run/vscsihba/control.sock")

_PATIENCE: Final = 60.0
"""Seconds for an answer to what changes nothing; what changes something may take its time."""


class Change(TypedDict):
    """One change, as JSON tells it; see `vscsihba.config.change.Change`, which also says the rest."""

    kind: str
    text: str
    sign: str
    disturbs: bool
    replaces: bool


class Changes(TypedDict):
    """What would be done, or was done, in order."""

    changes: list[Change]
    warnings: list[str]


class Step(TypedDict):
    """A change that begins: the number of it, how many there are, and what it does."""

    step: int
    of: int
    text: str


class EngineStatus(TypedDict):
    """A process that serves an HBA; since when, in seconds since 1970."""

    pid: int
    state: str
    since: float


class LunStatus(TypedDict):
    """A logical unit; size in bytes, engine as pid."""

    lun: int
    backstore: str | None
    device: str | None
    by_id: str | None
    size: int | None
    stack: str | None
    engine: int | None
    iops: float | None
    state: str
    read_only: bool


class HbaStatus(TypedDict):
    """An HBA with its engines and its LUNs."""

    id: int
    engines: list[EngineStatus]
    luns: list[LunStatus]


class DaemonStatus(TypedDict):
    """The service itself; since when, in seconds since 1970."""

    pid: int
    since: float


class Status(TypedDict):
    """Everything at a glance; `daemon` is None where none runs, `problems` are those of no single LUN."""

    problems: list[str]
    daemon: DaemonStatus | None
    hbas: list[HbaStatus]
    others: list[dict[str, Any]]


class Daemon:
    """The running service.

    Every method raises `UsageError` or `HostError` as the service says, and `HostError` where
    none runs.

    Args:
        path: Its control socket; by default the one of the machine's only service.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or SOCKET

    def plan(self, document: Document, *, prune: Prune = "named") -> Changes:
        """Return what `apply` would do."""
        return cast("Changes", self._ask("plan", {"document": builtins(document), "prune": prune}))

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
        """Make it so, and return what was done; what was begun is undone where it cannot be finished.

        Args:
            document: What there is to be.
            prune: What goes if the document does not have it.
            replace: Also change what cannot be changed while a disk works.
            force: Also take disks away that are in use.
            seen: What ran when it was decided what there is to be: where that has changed since, nothing
                is done.
            progress: Told of every step that begins.
        """
        wishes = {"prune": prune, "replace": replace, "force": force}
        expected = None if seen is None else builtins(seen)
        arguments = {"document": builtins(document), **wishes, "seen": expected}
        return cast("Changes", self._do("apply", arguments, progress))

    def show(self) -> dict[str, Any]:
        """Return what runs as a document in plain JSON values."""
        return cast("dict[str, Any]", self._ask("show", {}))

    def status(self) -> Status:
        """Return how everything is."""
        return cast("Status", self._ask("status", {}))

    def save(self, path: Path | None = None, *, force: bool = False) -> Path:
        """Write what runs into a file, the one that is restored at start by default; return which.

        Args:
            path: Absolute.
            force: Also an empty document over one that is not.
        """
        arguments = {"path": None if path is None else str(path), "force": force}
        return Path(cast("dict[str, str]", self._ask("save", arguments))["path"])

    def clear(self, hba: int | None = None, *, force: bool = False) -> list[str]:
        """Take away an HBA, or all of them, with everything that is on it; return what that was."""
        found = cast("dict[str, list[str]]", self._do("clear", {"hba": hba, "force": force}))
        return found["removed"]

    def resize(self, backstore: str, size: int) -> Any:
        """Enlarge a backstore to `size` bytes while its disk works."""
        return self._do("resize", {"backstore": backstore, "size": size})

    def act(self, wanted: Action, *, progress: Callable[[Any], None] | None = None) -> Any:
        """Have a layer of a disk do one of its actions; see `vscsihba.engine.owner.act`."""
        return self._do("act", asdict(wanted), progress)

    def _ask(self, verb: str, arguments: dict[str, Any]) -> object:
        return self._call(verb, arguments, timeout=_PATIENCE)

    def _do(
        self, verb: str, arguments: dict[str, Any], progress: Callable[[Any], None] | None = None
    ) -> object:
        return self._call(verb, arguments, timeout=None, progress=progress)

    def _call(
        self,
        verb: str,
        arguments: dict[str, Any],
        *,
        timeout: float | None,
        progress: Callable[[Any], None] | None = None,
    ) -> object:
        try:
            return call(self._path, verb, arguments, timeout=timeout, progress=progress)
        except NobodyListensError as error:
            raise NoDaemonError from error


class NoDaemonError(NobodyListensError):
    """No service runs."""

    def __init__(self) -> None:
        super().__init__(
            "the service is not running",
            cure='start it: "systemctl start vscsihba", or "vscsihba daemon" in a terminal of its own',
        )
