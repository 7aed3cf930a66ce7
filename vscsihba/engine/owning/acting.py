"""A layer of a LUN is asked to act, and what follows from it for the LUN: its size, its note, its users."""

from collections.abc import Callable, Mapping

from vscsihba.control import Progress
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.errors import InUseError


def act(
    owned: OwnedLun,
    layer: str,
    action: str,
    arguments: Mapping[str, object],
    *,
    users: Callable[[], list[str]],
    reshaped: Callable[[], None],
    disturbed: Callable[[], str | None],
    progress: Progress,
) -> dict[str, object]:
    """Have a layer of an owned LUN do something.

    Args:
        owned: The LUN, open.
        layer: Name of the layer's handler.
        action: What to do.
        arguments: Of the action.
        users: Tells who would see the disk change under them; whoever there is must go first.
        reshaped: Called when the LUN has another size or another stack.
        disturbed: Called when its content is another one; returns the disk whose partition table the caller
            is to read again, None if that has been done.
        progress: Told ``{"done": n, "of": m}``.

    Returns:
        ``owner``, ``result``, ``document`` and ``reread``, as `vscsihba.engine.owner.act` takes them.

    Raises:
        UsageError: There is no such action, or the arguments cannot be meant.
        InUseError: The disk is used.
        HostError, OSError: The action failed.
    """
    actions = owned.actions
    if actions is None:
        return {"owner": False, "known": True}
    disturbs = actions.disturbs(layer, action)
    if disturbs and (found := users()):
        raise InUseError(f"the disk is in use: {'; '.join(found)}", cure="end that, or use --force")
    outcome = actions.run(layer, action, arguments, lambda done, of: progress({"done": done, "of": of}))
    if outcome.document is not None:
        owned.take_note(outcome.document)
    if outcome.document is not None or outcome.size is not None:
        reshaped()
    reread = disturbed() if disturbs else None
    return {"owner": True, "result": outcome.result, "document": outcome.document, "reread": reread}
