"""Asynchronous verbs of filters, made of those of the layer below; and waiting for one.

For filters that observe requests or move them. It knows no particular handler, and no engine.
"""

import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from vscsihba.errors import MediumError
from vscsihba.handlers.base import AsyncVerbs, Done

ASYNC_VERBS: Final = frozenset(("read", "write", "flush", "unmap", "write_zeroes"))
"""Names of the verbs that can be asynchronous."""


def without(verbs: AsyncVerbs, names: Collection[str]) -> AsyncVerbs:
    """Return the verbs except those named."""
    return replace(verbs, **dict.fromkeys(names))


def surrounded(
    verbs: AsyncVerbs, names: Collection[str], around: Callable[..., AbstractContextManager[None]]
) -> AsyncVerbs:
    """Return the verbs, those named with a context around them from their beginning to their end.

    Args:
        verbs: Verbs of the layer below.
        names: Some of `ASYNC_VERBS`.
        around: Returns a context manager for the name of a verb and its arguments without `done`. It is left
            on the thread that calls `done`. An ``OSError`` that it raises on entering is raised by the verb;
            one that it raises on leaving takes the place of the verb's own.
    """
    changed: dict[str, Any] = {
        name: partial(_begin, verb, partial(around, name))
        for name in names
        if (verb := getattr(verbs, name)) is not None
    }
    return replace(verbs, **changed)


def _begin(
    verb: Callable[..., None], around: Callable[..., AbstractContextManager[None]], *args: Any
) -> None:
    *request, done = args
    context = around(*request)
    context.__enter__()

    def end(error: OSError | None) -> None:
        done(_left(context, error))

    try:
        verb(*request, end)
    except BaseException as error:
        context.__exit__(type(error), error, error.__traceback__)
        raise


def _left(context: AbstractContextManager[None], error: OSError | None) -> OSError | None:
    """Leave a context with the result of a verb; return the result as it is then."""
    try:
        if error is None:
            context.__exit__(None, None, None)
        else:
            context.__exit__(type(error), error, error.__traceback__)
    except OSError as changed:
        return changed
    return error


def moved(verbs: AsyncVerbs, distance: int) -> AsyncVerbs:
    """Return the verbs for a window that begins `distance` bytes behind the start of the layer below."""
    changed: dict[str, Any] = {
        name: partial(_begin_moved, verb, distance)
        for name in ASYNC_VERBS - {"flush"}
        if (verb := getattr(verbs, name)) is not None
    }
    return replace(verbs, **changed)


def _begin_moved(verb: Callable[..., None], distance: int, offset: int, *rest: Any) -> None:
    *arguments, done = rest
    verb(distance + offset, *arguments, partial(_moved_back, distance, done))


def _moved_back(distance: int, done: Done, error: OSError | None) -> None:
    if isinstance(error, MediumError):
        error = MediumError(error.offset - distance, error.strerror or "")
    done(error)


def wait(begin: Callable[[Done], None]) -> None:
    """Begin an asynchronous verb and wait for its end, on any thread but the one that finishes verbs.

    Args:
        begin: Begins it with the `done` that it is given.

    Raises:
        OSError: As the verb.
    """
    ended = threading.Event()
    errors: list[OSError | None] = []

    def done(error: OSError | None) -> None:
        errors.append(error)
        ended.set()

    begin(done)
    ended.wait()
    error = errors.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # or it and this frame, with the views of the verb, would keep each other
