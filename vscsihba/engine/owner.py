"""Asking the owner of a LUN, whichever of an HBA's engines that is.

Every engine answers on a control socket of its own; one that does not own the LUN says so. While
a LUN is handed over nobody owns it, so everybody is asked again for a while.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from vscsihba import configfs
from vscsihba.control import NobodyListensError, call
from vscsihba.engine.owning.locks import RUN, run_directory
from vscsihba.errors import HostError, UsageError

log = logging.getLogger(__name__)

PATIENCE: Final = 15.0
"""Seconds for a handover, after which a LUN counts as served by nobody."""

_SILENCE: Final = 3600.0
"""Seconds that an action may work without a word of progress."""


def control_sockets(hba_id: int, run: Path = RUN) -> list[Path]:
    """Return the control sockets of the engines of an HBA, of those that were killed too."""
    return sorted(run_directory(hba_id, run).glob("engine-*.control"))


@dataclass(frozen=True, slots=True)
class Action:
    """What a layer of a LUN's stack is asked to do.

    Attributes:
        hba: 0..255.
        lun: Its number on the HBA.
        layer: Name of the layer's handler.
        action: What to do (`vscsihba.handlers.actions`).
        arguments: Of the action.
        force: Also where a user of the disk would see it change.
    """

    hba: int
    lun: int
    layer: str
    action: str
    arguments: Mapping[str, object]
    force: bool = False


def act(
    wanted: Action,
    *,
    progress: Callable[[Any], None] | None = None,
    run: Path = RUN,
    patience: float = PATIENCE,
) -> dict[str, Any]:
    """Have a layer of a LUN's stack do something, in the engine that serves it.

    Where the content of the disk is another one then, Linux reads its partition table again. An engine of the
    service may not ask for that (`vscsihba.engine.privileges`), so this process does.

    Args:
        wanted: What.
        progress: Told ``{"done": n, "of": m}``.
        run: The run directory.
        patience: Seconds to wait for an owner.

    Returns:
        ``result``, what the layer tells, and ``document``, the stack as it is now, None if unchanged.

    Raises:
        UsageError, HostError: As the layer says, or nobody serves the LUN.
    """
    hba = f"hba{wanted.hba}"
    deadline = time.monotonic() + patience
    while True:
        answers = []
        for answer in _answers(wanted, progress, run):
            if answer["owner"]:
                _reread(answer.pop("reread", None))
                return answer
            answers.append(answer)
        if not any(answer["known"] for answer in answers):
            what = f"{hba} has no LUN {wanted.lun}" if answers else f"nobody serves {hba}"
            raise UsageError(what, cure='see "vscsihba status"')
        if time.monotonic() > deadline:
            raise HostError(f"no engine of {hba} serves LUN {wanted.lun}", cure='see "vscsihba status"')
        time.sleep(0.1)


def _reread(disk: str | None) -> None:
    """Let Linux look at the partitions of a disk again, as far as it can."""
    if disk is None:
        return
    try:
        configfs.reread_partitions(Path(disk))
    except HostError as error:
        log.warning("%s", error)


def _answers(wanted: Action, progress: Callable[[Any], None] | None, run: Path) -> Iterator[dict[str, Any]]:
    """Ask one engine after the other; those that were killed have no answer."""
    asked = {key: value for key, value in asdict(wanted).items() if key != "hba"}
    for path in control_sockets(wanted.hba, run):
        try:
            answer = call(path, "act", asked, timeout=_SILENCE, progress=progress)
        except NobodyListensError:
            continue
        yield answer if isinstance(answer, dict) else {"owner": False, "known": False}
