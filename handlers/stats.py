"""stats: counts requests and bytes, and logs the counts when the disk is closed.

It counts at its own place in the stack: above a cache what was asked for, below it what
was really done.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Views
from vscsihba.handlers.base import Handler, InlineVerbs, Mover
from vscsihba.handlers.interceptor import VERBS, Interceptor, Request, Verb
from vscsihba.handlers.options import FilePath
from vscsihba.handlers.shared.durable import replace_file
from vscsihba.units import format_size

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Count:
    """Counts of one verb.

    Attributes:
        calls: How often it was asked for.
        bytes: Bytes of all ranges that it was asked for.
        errors: How often it failed.
        seconds: Time spent in it, added up over threads; reads of what is at hand count as no time.
        longest: The longest time spent in it once, in seconds.
    """

    calls: int = 0
    bytes: int = 0
    errors: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        """Add counts from elsewhere."""
        return Count(
            self.calls + other.calls,
            self.bytes + other.bytes,
            self.errors + other.errors,
            self.seconds + other.seconds,
            max(self.longest, other.longest),
        )

    def __str__(self) -> str:
        """Return the counts as text."""
        each = self.seconds / self.calls * 1e3 if self.calls else 0.0
        return (
            f"{self.calls} calls, {format_size(self.bytes)}, {self.errors} errors, "
            f"{each:.3f} ms each, {self.longest * 1e3:.3f} ms at most"
        )


class StatsHandler(Interceptor):
    """Counters of requests by verb."""

    name = "stats"
    example = "stats:/run/disk.json|/srv/disk.img"
    only_observes = True

    class Options(Handler.Options, kw_only=True):
        """Options of the stats filter."""

        file: Annotated[
            FilePath,
            Meta(description="File for the counters as JSON, written on closing; default: the log."),
        ] = ""

    options: Options

    def __init__(self, options: Options, below: Handler) -> None:
        super().__init__(options, below)
        self._counts: dict[Verb, Count] = {verb: Count() for verb in VERBS}
        self._inline: dict[Verb, Count] = {}
        self._lock = threading.Lock()

    @property
    def counts(self) -> dict[Verb, Count]:
        """The counters so far; read them at any time."""
        with self._lock:
            return {verb: count + self._inline.get(verb, Count()) for verb, count in self._counts.items()}

    def close(self) -> None:
        """Log the counts.

        Raises:
            OSError: The file cannot be written.
        """
        counted = {verb: count for verb, count in self.counts.items() if count.calls}
        if self.options.file:
            text = json.dumps({verb: asdict(count) for verb, count in counted.items()}, indent=2)
            replace_file(Path(self.options.file), text.encode() + b"\n")
            return
        for verb, count in counted.items():
            log.info("%s: %s: %s", self.identity, verb, count)

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the layer below, counted by the one thread that calls them, without a lock.

        What one of them does not do wholly comes again on another thread, and is counted then.
        """
        below = self.next.inline
        return replace(
            below,
            read=below.read and self._counted(below.read),
            write=below.write and self._timed(below.write),
        )

    def _counted(self, read: Mover) -> Mover:
        """Count inline reads without timing them: a clock costs more than most reads, and they never wait."""
        count = self._inline.setdefault("read", Count())

        def counted(views: Views, offset: int, flags: int) -> int:
            moved = read(views, offset, flags)
            if moved == (len(views[0]) if len(views) == 1 else sum(map(len, views))):
                count.calls += 1
                count.bytes += moved
            return moved

        return counted

    def _timed(self, write: Mover) -> Mover:
        """Count writes, and the time that they take."""
        count = self._inline.setdefault("write", Count())

        def timed(views: Views, offset: int, flags: int) -> int:
            start = time.perf_counter()
            moved = write(views, offset, flags)
            spent = time.perf_counter() - start
            if moved == sum(map(len, views)):
                count.calls += 1
                count.bytes += moved
                count.seconds += spent
                count.longest = max(count.longest, spent)
            return moved

        return timed

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Count a request and the time it takes."""
        start = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            spent = time.perf_counter() - start
            count = self._counts[request.verb]
            with self._lock:
                count.calls += 1
                count.bytes += request.length if request.verb != "resize" else 0
                count.errors += failed
                count.seconds += spent
                count.longest = max(count.longest, spent)
