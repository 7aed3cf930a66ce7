"""Handlers for tests: storage that does not come back, and a process that dies at the worst moment.

Both do so while a file exists: its path is their first option. They write what they do into
a file beside it.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from vscsihba.handlers.base import Handler
from vscsihba.handlers.interceptor import Interceptor, Request, Verb
from vscsihba.handlers.options import FilePath


def holding(flag: Path) -> Path:
    """Return the file that exists once a request has been held because of `flag`."""
    return flag.with_name(flag.name + ".holding")


class Sticking(Interceptor):
    """Storage that answers nothing while a file exists, like a server that has gone."""

    name = "sticking"

    class Options(Handler.Options, kw_only=True):
        """Options of the sticking filter."""

        flag: Annotated[FilePath, Meta(description="Requests wait while this file exists.")]
        verbs: Annotated[tuple[Verb, ...], Meta(description="Which ones.")] = ("write",)

    options: Options

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Wait, then let the request go down."""
        flag = Path(self.options.flag)
        while request.verb in self.options.verbs and flag.exists():
            holding(flag).touch()
            time.sleep(0.02)
        yield


class Dying(Interceptor):
    """A process that is killed once a write has reached the medium, before anybody is told."""

    name = "dying"

    class Options(Handler.Options, kw_only=True):
        """Options of the dying filter."""

        flag: Annotated[FilePath, Meta(description="Writes are the last thing done while this file exists.")]

    options: Options

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Let the request go down, and die if it is a write."""
        yield
        if request.verb == "write" and Path(self.options.flag).exists():
            os.kill(os.getpid(), signal.SIGKILL)
