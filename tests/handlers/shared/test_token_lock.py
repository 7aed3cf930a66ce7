import sys
import threading
from collections.abc import Callable

import pytest

from tests.polling import wait_until
from vscsihba.handlers.shared.token_lock import TokenLock

PATIENCE = 10


def test_a_lock_that_is_held_is_not_taken() -> None:
    lock = TokenLock()
    assert not lock.locked()
    assert lock.acquire(blocking=False)
    assert lock.locked()
    assert not lock.acquire(blocking=False)
    lock.release()
    assert lock.acquire()
    assert not lock.acquire(blocking=False)


def test_leaving_the_context_releases_the_lock() -> None:
    lock = TokenLock()
    with pytest.raises(BlockingIOError), lock:
        _fail_if_held(lock)
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize("take", [TokenLock.__enter__, TokenLock.acquire])
def test_those_who_wait_take_the_lock_one_after_the_other(take: Callable[[TokenLock], object]) -> None:
    lock, inside, entered = TokenLock(), [], []

    def enter() -> None:
        take(lock)
        inside.append(1)
        entered.append(len(inside))
        inside.pop()
        lock.release()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    with lock:
        for thread in threads:
            thread.start()
        wait_until(lambda: all("enter" in _functions_of(thread) for thread in threads))
        assert not entered
    for thread in threads:
        thread.join(PATIENCE)
    assert entered == [1] * len(threads)


def test_a_condition_waits_without_the_lock() -> None:
    lock, told = TokenLock(), []
    changed = threading.Condition(lock)  # type: ignore[arg-type]  # it needs no more

    def wait() -> None:
        with changed:
            told.append("waits")
            changed.wait(PATIENCE)
            told.append("goes on")

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: bool(told) and lock.acquire(blocking=False))
    assert told == ["waits"]
    lock.release()
    with changed:
        changed.notify_all()
    thread.join(PATIENCE)
    assert told == ["waits", "goes on"]


def _fail_if_held(lock: TokenLock) -> None:
    if not lock.acquire(blocking=False):
        raise BlockingIOError


def _functions_of(thread: threading.Thread) -> list[str]:
    """Return the functions on the stack of a thread, the innermost first; none before it has begun."""
    frame, functions = sys._current_frames().get(thread.ident or 0), []
    while frame is not None:
        functions.append(frame.f_code.co_name)
        frame = frame.f_back
    return functions
