"""Requests to the owner of a LUN, which can be any engine of the HBA.

Every engine has a control socket; one that does not own the LUN answers so. While a LUN is handed over it has
no owner, so the engines are asked again for some time.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from vscsihba import configfs
from vscsihba.control import NotListeningError, call
from vscsihba.engine.owning.locks import RUN, run_directory
from vscsihba.errors import HostError, UsageError

log = logging.getLogger(__name__)

PATIENCE: Final = 15.0
"""Seconds for a handover, after which a LUN counts as not served."""

_SILENCE: Final = 3600.0
"""Seconds that an action may run without reporting progress."""


def control_sockets(hba_id: int, run: Path = RUN) -> list[Path]:
    """Return the control sockets of the engines of an HBA, including those of killed engines."""
    return sorted(run_directory(hba_id, run).glob("engine-*.control"))


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a layer of a LUN's stack.

    Attributes:
        hba: 0..255.
        lun: Its number on the HBA.
        layer: Name of the layer's handler.
        action: Name of the action (`vscsihba.handlers.actions`).
        arguments: Arguments of the action.
        force: Run it even if the disk is in use and its content changes.
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
    """Have the engine that serves a LUN run an action of one of its layers.

    If the action changes the content of the disk, Linux reads the partition table again. An engine of the
    service has no privilege for that (`vscsihba.engine.privileges`), so this process does it.

    Args:
        wanted: The action.
        progress: Called with ``{"done": n, "of": m}``.
        run: The run directory.
        patience: Seconds to wait for an owner.

    Returns:
        ``result``, the layer's result, and ``document``, the new document of the stack, None if unchanged.

    Raises:
        UsageError, HostError: Errors of the layer, or no engine serves the LUN.
    """
    hba = f"HBA {wanted.hba}"
    deadline = time.monotonic() + patience
    while True:
        answers = []
        for answer in _answers(wanted, progress, run):
            if answer["owner"]:
                _reread(answer.pop("reread", None))
                return answer
            answers.append(answer)
        if not any(answer["known"] for answer in answers):
            what = (
                f"{hba} has no LUN {wanted.lun}, or cannot serve it" if answers else f"no engine serves {hba}"
            )
            raise UsageError(what, cure='see "vscsihba status"')
        if time.monotonic() > deadline:
            raise HostError(f"no engine of {hba} serves LUN {wanted.lun}", cure='see "vscsihba status"')
        time.sleep(0.1)


def _reread(disk: str | None) -> None:
    """Have Linux read the partition table of a disk again, and log an error of that."""
    if disk is None:
        return
    try:
        configfs.reread_partitions(Path(disk))
    except HostError as error:
        log.warning("%s", error)


def _answers(wanted: Action, progress: Callable[[Any], None] | None, run: Path) -> Iterator[dict[str, Any]]:
    """Ask one engine after the other; killed engines have no answer."""
    asked = {key: value for key, value in asdict(wanted).items() if key != "hba"}
    for path in control_sockets(wanted.hba, run):
        try:
            answer = call(path, "act", asked, timeout=_SILENCE, progress=progress)
        except NotListeningError:
            continue
        yield answer if isinstance(answer, dict) else {"owner": False, "known": False}
