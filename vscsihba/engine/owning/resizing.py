"""A LUN that is served takes another size: the medium, then the unit, then the kernel's backstore.

If one of them refuses, those before it go back. That Linux notices is another's business.
"""

from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Final

from vscsihba import configfs
from vscsihba.engine.owning.owned_lun import Tenure
from vscsihba.engine.serving.call_queue import Mailbox
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.errors import HostError, UsageError
from vscsihba.units import format_size

_PATIENCE: Final = 60.0
"""Seconds for the commands under way, and the medium, to make room for a resize."""


def resize(tenure: Tenure, size: int, mailbox: Mailbox) -> None:
    """Let the lowest layer of a LUN have `size` bytes; what lies upon it keeps what it takes for itself.

    Args:
        tenure: The LUN, open.
        size: Bytes.
        mailbox: Of the pump that serves it.

    Raises:
        UsageError: It would shrink, or no disk can have that size.
        HostError, OSError: The medium or the kernel refuses; the size is as before.
    """
    served, stack = tenure.served, tenure.stack
    if served is None or stack is None:
        raise HostError(f"LUN {tenure.request.lun} is not served here")
    bottom = stack.layers[0]
    before, below = served.medium.geometry, bottom.geometry.size
    if size < below:
        raise UsageError(
            f"LUN {tenure.request.lun} cannot shrink from {format_size(below)} to {format_size(size)}",
            cure="make a smaller disk and copy what is needed",
        )
    if size == below:
        return
    wanted = replace(before, size=before.size + size - below)
    _change(served, wanted.size, mailbox)
    try:
        _demand(tenure, bottom.geometry.size == size)
        configfs.resize_backstore(tenure.name, wanted.size)
    except HostError:
        _change(served, before.size, mailbox)
        raise


def reshape(tenure: Tenure, mailbox: Mailbox) -> None:
    """Take over the size that a medium has by now.

    Raises:
        HostError: The kernel refuses.
    """
    if tenure.served is not None:
        mailbox.post(tenure.served.reshape)
        configfs.resize_backstore(tenure.name, tenure.served.medium.geometry.size)


def _demand(tenure: Tenure, condition: bool) -> None:  # noqa: FBT001
    if not condition:
        raise HostError(
            f"a layer of LUN {tenure.request.lun} has a size of its own", cure="make that layer larger"
        )


def _change(served: ServedLun, size: int, mailbox: Mailbox) -> None:
    done: Future[None] = Future()
    mailbox.post(partial(served.resize, size, done))
    try:
        done.result(_PATIENCE)
    except TimeoutError as error:
        if done.done():  # the medium's own error
            raise
        done.cancel()
        raise HostError(
            f"lun {served.lun}: the storage has not answered within {_PATIENCE:g} s", cure="try again"
        ) from error
