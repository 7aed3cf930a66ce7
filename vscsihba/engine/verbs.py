"""What other processes can ask of an engine, on its control socket."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from vscsihba.control import ProgressCallback
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import UsageError

if TYPE_CHECKING:
    from vscsihba.engine.target import Target

T = TypeVar("T")


def verbs(target: "Target", end: Callable[..., None] | None) -> dict[str, Callable[..., object]]:
    """Return the verbs of an engine by name; ``end`` is there only if it can be asked to."""

    def add_lun(request: Mapping[str, Any], *, make: bool = False) -> dict[str, object]:
        """Know one more LUN; the request is a `LunSpec` as JSON has it, `make` as in `Target.add`."""
        disk = target.add(_converted(request, LunSpec, "a LUN"), make=make)
        return {"device": str(disk.device), "size": disk.size}

    def remove_lun(lun: int, *, leave: bool = False, force: bool = False) -> None:
        """Take a LUN down, or leave it to the other engines."""
        if leave:
            target.leave(lun)
        else:
            target.remove(lun, force=force)

    def resize(lun: int, size: int) -> dict[str, object]:
        """Let a LUN have another size in bytes."""
        return {"owner": target.resize(lun, size)}

    def tune_lun(lun: int, tuning: Mapping[str, Any]) -> None:
        """Have Linux treat a LUN otherwise; the tuning is a `Tuning` as JSON has it."""
        target.tune(lun, _converted(tuning, Tuning, "the tuning of a LUN"))

    def act(
        lun: int,
        layer: str,
        action: str,
        arguments: Mapping[str, Any],
        *,
        force: bool,
        progress: ProgressCallback,
    ) -> dict[str, object]:
        """Have a layer of a LUN do something; `vscsihba.engine.owner.act` asks for it."""
        return target.act(lun, layer, action, arguments, force=force, progress=progress)

    table: dict[str, Callable[..., object]] = {
        "act": act,
        "actions": target.actions,
        "status": target.status,
        "add_lun": add_lun,
        "remove_lun": remove_lun,
        "resize": resize,
        "tune_lun": tune_lun,
    }
    if end is not None:
        table["end"] = end
    return table


def _converted(said: Mapping[str, Any], kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"not {what}: {error}") from error
