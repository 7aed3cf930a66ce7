"""Reads and writes on worker threads, in the form of asynchronous verbs.

So the plain commands of a handler that may block take the same short way (`async_path`) as those of a handler
that finishes its verbs later.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from vscsihba.block import BlockOp, BlockResult, Read, Views, Write
from vscsihba.engine.serving.workers import Workers
from vscsihba.handlers.base import AsyncVerbs
from vscsihba.stats import LunStats


def threaded_verbs(
    perform: Callable[[BlockOp], BlockResult], workers: Workers[BlockResult], stats: LunStats
) -> AsyncVerbs:
    """Return the verbs; a worker thread calls their `done`, with any exception of the handler.

    Args:
        perform: Does one block operation on the calling thread.
        workers: The threads of the logical unit.
        stats: Its counters.
    """

    def read(offset: int, views: Views, done: Callable[[Any], None]) -> None:
        stats.waits += 1
        workers.run(partial(perform, Read(offset, views)), partial(_ended, done))

    def write(offset: int, views: Views, fua: bool, done: Callable[[Any], None]) -> None:  # noqa: FBT001
        stats.waits += 1
        workers.run(partial(perform, Write(offset, views, fua)), partial(_ended, done))

    return AsyncVerbs(read=read, write=write)


def _ended(done: Callable[[Any], None], _result: BlockResult, error: Exception | None) -> None:
    done(error)
