"""delay: every verb takes longer, as on a slow or far-away disk.

It delays each request by itself: several wait side by side, as they do in a network.
For a limit that they share, see `rate`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta

from vscsihba.handlers.around import VERBS, Around, Request, Verb
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import Seconds


class DelayHandler(Around):
    """A slower disk."""

    name = "delay"
    example = "delay:0.01|/srv/disk.img"

    class Options(Handler.Options, kw_only=True):
        """Options of the delay filter."""

        seconds: Annotated[Seconds, Meta(description="How long to wait before each request.")]
        verbs: Annotated[tuple[Verb, ...], Meta(description="Which verbs to delay; all, if left out.")] = (
            VERBS
        )

    options: Options

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Wait, then let the request go down."""
        if request.verb in self.options.verbs:
            time.sleep(self.options.seconds)
        yield
