"""Undo: closes or removes everything opened or created so far when a later step fails.

The failure of that step is the one that is raised, whatever fails while the others are taken back: it
may be a `FlushError`, which the initiators have to be told of.
"""

import logging
from contextlib import ExitStack
from types import TracebackType

from vscsihba.errors import VscsihbaError

log = logging.getLogger(__name__)


class Undo(ExitStack):
    """An ``ExitStack`` whose own failures are only logged when it is left by an exception."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        """Take everything back, in reverse order; the exception goes on."""
        try:
            return super().__exit__(kind, error, trace)
        except (OSError, MemoryError, VscsihbaError) as later:
            if error is None:
                raise
            if later is not error:
                log.warning("after %r: %s", error, later)
            return False
