"""The wait of all tests: poll a condition until it is true, and fail after a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT = 120.0
"""Seconds for a condition to become true; a busy machine and software emulation are slow."""


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], str] = "the condition is true",
    *,
    limit: float = LIMIT,
    pause: float = 0.002,
) -> T:
    """Call a condition until it returns a true value, and return that value.

    Args:
        condition: The condition.
        what: A description for the error message, or a function that returns it after the failure.
        limit: Seconds.
        pause: Seconds between two calls.

    Raises:
        AssertionError: No true value within `limit` seconds.
    """
    value = poll(condition, limit=limit, pause=pause)
    if not value:
        raise AssertionError(f"not within {limit:g} s: {what if isinstance(what, str) else what()}")
    return value


def poll(condition: Callable[[], T], *, limit: float, pause: float = 0.002) -> T:
    """Call a condition until it is true or `limit` seconds are over, and return its last value."""
    deadline = time.monotonic() + limit
    while not (value := condition()) and time.monotonic() <= deadline:
        time.sleep(pause)
    return value
