"""Block operations that a handler begins at once and finishes later, without a thread for each.

An operation for which the handler has no asynchronous verb, or not now, is left to `workers`. All of this
runs on the pump's thread, except `done` of the verbs, which may be called on any.
"""

import logging
from collections.abc import Callable
from functools import partial

from vscsihba.block import BlockOp, BlockResult, Flush, Read, Unmap, Write, WriteZeroes
from vscsihba.engine.serving.call_queue import Calls
from vscsihba.handlers.base import AsyncVerbs, Done

log = logging.getLogger(__name__)

Ended = Callable[[BlockResult, Exception | None], None]
"""Called on the pump's thread with the result of an operation, or its error."""


class AsyncOperations:
    """The asynchronous operations of one logical unit.

    Args:
        name: Name of the unit, for log lines.
        verbs: Asynchronous verbs of its handler stack.
        calls: Takes the results; the serving thread runs the `ended` callbacks.

    Attributes:
        busy: Operations that have begun and whose `ended` was not called yet.
    """

    def __init__(self, name: str, verbs: AsyncVerbs, calls: Calls) -> None:
        self._name = name
        self._verbs = verbs
        self._calls = calls
        self.busy = 0

    def begin(self, op: BlockOp, ended: Ended) -> bool:
        """Begin an operation; False if the handler cannot, so that a thread has to perform it.

        Raises:
            Exception: Any that a verb has raised other than ``OSError``; it has begun nothing.
        """
        start = self._start_of(op)
        return start is not None and self.start(start, ended)

    def start(self, start: Callable[[Done], None], ended: Ended) -> bool:
        """Call a verb; False if it would have blocked.

        Args:
            start: The verb with all of its arguments but `done`.
            ended: Called with the result.

        Raises:
            Exception: Any that the verb has raised other than ``OSError``; it has begun nothing.
        """
        operation = _Operation(self, ended)
        self.busy += 1
        try:
            start(operation)
        except BlockingIOError:
            self.busy -= 1
            return False
        except OSError as error:
            operation(error)
        except BaseException:
            self.busy -= 1
            raise
        return True

    def _start_of(self, op: BlockOp) -> Callable[[Done], None] | None:
        """Return the verb of an operation with all of its arguments but `done`."""
        verbs = self._verbs
        match op:
            case Read(offset, views):
                return verbs.read and partial(verbs.read, offset, views)
            case Write(offset, views, fua):
                return verbs.write and partial(verbs.write, offset, views, fua)
            case Flush():
                return verbs.flush
            case Unmap(extent):
                return verbs.unmap and partial(verbs.unmap, extent.offset, extent.length)
            case WriteZeroes(extent, may_unmap, fua):
                return verbs.write_zeroes and partial(
                    verbs.write_zeroes, extent.offset, extent.length, may_unmap, fua
                )
        return None

    def post(self, operation: "_Operation", error: OSError | None) -> None:
        """Have the serving thread end an operation; on any thread."""
        self._calls.post(partial(self._end, operation, error))

    def _end(self, operation: "_Operation", error: OSError | None) -> None:
        if (ended := operation.ended) is None:
            log.error("%s: a handler has ended one operation twice", self._name)
            return
        operation.ended = None
        self.busy -= 1
        ended(None, error)


class _Operation:
    """An operation under way; it is the `done` of its verb.

    Attributes:
        ended: Takes the result; None once it has.
    """

    __slots__ = ("_owner", "ended")

    def __init__(self, owner: AsyncOperations, ended: Ended) -> None:
        self._owner = owner
        self.ended: Ended | None = ended

    def __call__(self, error: OSError | None) -> None:
        self._owner.post(self, error)
