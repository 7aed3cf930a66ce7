"""A thread that ends the commands for which a change of a target waits, if their storage does not answer."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from vscsihba import configfs, threads

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0
"""Seconds that a change may take before commands are ended."""
_PAUSE: Final = 1.0
"""Seconds until commands that have come in the meantime are looked at."""


@contextmanager
def giving_up(
    backstores: Iterable[str], give_up_old: Callable[[int, int], None], patience: float = _PATIENCE
) -> Iterator[None]:
    """End old commands of backstores while the context is entered for longer than `patience`.

    Args:
        backstores: Their names in the kernel.
        give_up_old: Ends the commands of the LUN of an HBA that are some seconds old.
        patience: Seconds.
    """
    places = [place for name in backstores if (place := configfs.place_of(name)) is not None]
    ended = threading.Event()

    def run() -> None:
        if ended.wait(patience):
            return
        log.warning("a change of an export takes long; commands without an answer of their storage are ended")
        while not ended.wait(_PAUSE):
            for place in places:
                give_up_old(*place)

    thread = threading.Thread(target=run, name="giving-up", daemon=True)
    try:
        threads.start(thread)
    except OSError as error:
        log.warning("commands that hold a change up are not ended: %s", error)
        yield
        return
    try:
        yield
    finally:
        ended.set()
        thread.join()
