"""A LUN that is served takes another size: the medium, then the unit, then the kernel's backstore.

If one of them refuses, those before it go back. That Linux notices is another's business.
"""

from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Final

from vscsihba import configfs
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.errors import HostError, UsageError
from vscsihba.units import format_size

_PATIENCE: Final = 60.0
"""Seconds for the commands under way, and the medium, to make room for a resize."""


def resize(owned: OwnedLun, size: int, calls: CallQueue) -> None:
    """Let the lowest layer of a LUN have `size` bytes; what lies upon it keeps what it takes for itself.

    Args:
        owned: The LUN, open.
        size: Bytes.
        calls: Of the pump that serves it.

    Raises:
        UsageError: It would shrink, or no disk can have that size.
        HostError, OSError: The medium or the kernel refuses; the size is as before.
    """
    served, stack = owned.served, owned.stack
    if served is None or stack is None:
        raise HostError(f"LUN {owned.spec.lun} is not served here")
    bottom = stack.layers[0]
    before, below = served.handler.geometry, bottom.geometry.size
    if size < below:
        raise UsageError(
            f"LUN {owned.spec.lun} cannot shrink from {format_size(below)} to {format_size(size)}",
            cure="make a smaller disk and copy what is needed",
        )
    if size == below:
        return
    wanted = replace(before, size=before.size + size - below)
    _change(served, wanted.size, calls)
    try:
        _demand(owned, bottom.geometry.size == size)
        configfs.resize_backstore(owned.name, wanted.size)
    except HostError:
        _change(served, before.size, calls)
        raise


def reshape(owned: OwnedLun, calls: CallQueue) -> None:
    """Take over the size that a medium has by now.

    Raises:
        HostError: The kernel refuses.
    """
    if owned.served is not None:
        calls.post(owned.served.reshape)
        configfs.resize_backstore(owned.name, owned.served.handler.geometry.size)


def _demand(owned: OwnedLun, condition: bool) -> None:  # noqa: FBT001
    if not condition:
        raise HostError(
            f"a layer of LUN {owned.spec.lun} has a size of its own", cure="make that layer larger"
        )


def _change(served: ServedLun, size: int, calls: CallQueue) -> None:
    done: Future[None] = Future()
    calls.post(partial(served.resize, size, done))
    try:
        done.result(_PATIENCE)
    except TimeoutError as error:
        if done.done():  # the medium's own error
            raise
        done.cancel()
        raise HostError(
            f"lun {served.lun}: the storage has not answered within {_PATIENCE:g} s", cure="try again"
        ) from error
