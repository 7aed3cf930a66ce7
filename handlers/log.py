"""log: one line for every request, with its result and its duration.

The engine's trace shows SCSI commands; this shows what a layer makes of them, at its
own place in the stack.
"""

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta

from vscsihba.handlers.base import Handler
from vscsihba.handlers.interceptor import VERBS, Interceptor, Request, Verb

log = logging.getLogger(__name__)


class LogHandler(Interceptor):
    """A log line for every request (logger vscsihba.handlers.log)."""

    name = "log"
    example = 'log:verbs=["flush","unmap"]|/srv/disk.img'
    only_observes = True

    class Options(Handler.Options, kw_only=True):
        """Options of the log filter."""

        prefix: Annotated[str, Meta(description="Prefix of every line.")] = ""
        verbs: Annotated[tuple[Verb, ...], Meta(description="Verbs to log; default: all.")] = VERBS

    options: Options

    @property
    def watched(self) -> Collection[Verb]:
        """Those that the options name."""
        return self.options.verbs

    def open(self) -> None:
        """Log the geometry of the layer below."""
        self._line("open", f"{self.identity} {self.geometry} {self.capabilities}")

    def close(self) -> None:
        """Log the end."""
        self._line("close", "")

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Log a request when it has ended."""
        if request.verb not in self.options.verbs:
            yield
            return
        start = time.perf_counter()
        outcome = "failed"
        try:
            yield
            outcome = "ok"
        except OSError as error:
            outcome = str(error)
            raise
        finally:
            self._line(str(request), f"{outcome} {(time.perf_counter() - start) * 1e3:.3f} ms")

    def _line(self, what: str, rest: str) -> None:
        log.info("%s", " ".join(part for part in (self.options.prefix, what, rest) if part))
