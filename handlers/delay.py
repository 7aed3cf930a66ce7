"""delay: every verb takes longer, as on a slow or far-away disk.

It delays each request by itself: several wait side by side, as they do in a network.
For a limit that they share, see `rate`.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta

from vscsihba.handlers.base import Handler
from vscsihba.handlers.interceptor import VERBS, Interceptor, Request, Trigger, Verb, is_triggered
from vscsihba.handlers.options import Seconds


class DelayHandler(Interceptor):
    """Delays for requests, for tests."""

    name = "delay"
    example = "delay:0.01|/srv/disk.img"

    class Options(Handler.Options, kw_only=True):
        """Options of the delay filter."""

        seconds: Annotated[Seconds, Meta(description="Seconds to delay each request.")]
        verbs: Annotated[tuple[Verb, ...], Meta(description="Verbs to delay; default: all.")] = VERBS
        trigger: Trigger = ""

    options: Options

    @property
    def watched(self) -> Collection[Verb]:
        """Those that the options name."""
        return self.options.verbs

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Wait, then let the request go down."""
        if request.verb in self.options.verbs and is_triggered(self.options.trigger):
            time.sleep(self.options.seconds)
        yield
