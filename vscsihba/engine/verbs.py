"""The verbs of an engine's control socket, with which other processes use it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from vscsihba.control import ProgressCallback, Stream
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.trace_stream import trace_stream
from vscsihba.errors import UsageError

if TYPE_CHECKING:
    from vscsihba.engine.target import Target

T = TypeVar("T")


def verbs(target: "Target", end: Callable[..., None] | None) -> dict[str, Callable[..., object]]:
    """Return the verbs of an engine by name; without `end` there is no such verb."""

    def add_lun(request: Mapping[str, Any], *, make: bool = False) -> dict[str, object]:
        """Add a LUN; `request` is a `LunSpec` in JSON, `make` as in `Target.add`."""
        disk = target.add(_converted(request, LunSpec, "a LUN"), make=make)
        return {} if disk is None else {"device": str(disk.device), "size": disk.size}

    def remove_lun(lun: int, *, leave: bool = False, force: bool = False) -> None:
        """Remove a LUN, or leave it to the other engines."""
        if leave:
            target.leave(lun)
        else:
            target.remove(lun, force=force)

    def resize(lun: int, size: int) -> dict[str, object]:
        """Change the size of a LUN, in bytes."""
        return {"owner": target.resize(lun, size)}

    def tune_lun(lun: int, tuning: Mapping[str, Any]) -> None:
        """Change how Linux treats a LUN; `tuning` is a `Tuning` in JSON."""
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
        """Run an action of a layer of a LUN, for `vscsihba.engine.owner.act`."""
        return target.act(lun, layer, action, arguments, force=force, progress=progress)

    def trace(luns: Sequence[int] | None = None, *, snaplen: int, buffer: int) -> Stream:
        """Send records of finished commands; see `trace_stream`."""
        return trace_stream(target.taps, target.id, luns, snaplen=snaplen, buffer=buffer)

    table: dict[str, Callable[..., object]] = {
        "act": act,
        "actions": target.actions,
        "status": target.status,
        "statistics": target.statistics,
        "clear_statistics": target.clear_statistics,
        "add_lun": add_lun,
        "remove_lun": remove_lun,
        "resize": resize,
        "give_up_old": target.give_up_old,
        "trace": trace,
        "tune_lun": tune_lun,
    }
    if end is not None:
        table["end"] = end
    return table


def _converted(value: Mapping[str, Any], kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"not {what}: {error}") from error
