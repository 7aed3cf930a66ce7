import threading

from tests.polling import wait_until
from vscsihba.handlers.shared.range_lock import RangeLock
from vscsihba.handlers.shared.token_lock import TokenLock

PATIENCE = 10


def test_ranges_that_do_not_overlap_are_held_together() -> None:
    lock = RangeLock()
    with lock.held(0, 10), lock.held(10, 10), lock.held(30, 1):
        between = lock.try_hold(20, 10)
        assert between is not None
        between()


def test_ranges_that_overlap_wait_in_their_order() -> None:
    lock, order, free = RangeLock(), [], threading.Event()

    def change(name: str, offset: int, length: int) -> None:
        with lock.held(offset, length):
            order.append(name)

    def hold() -> None:
        with lock.held(0, 10):
            free.wait(PATIENCE)

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    wait_until(lambda: len(lock._queue) == 1)
    for number, (name, offset, length) in enumerate(
        (("large", 5, 100), ("behind", 50, 1), ("beside", 200, 5))
    ):
        threads.append(threading.Thread(target=change, args=(name, offset, length)))
        threads[-1].start()
        wait_until(lambda: len(lock._queue) + len(order) == number + 2)  # noqa: B023
    wait_until(lambda: order == ["beside"])
    # "behind" overlaps nothing that is held, but something that has waited longer.
    assert order == ["beside"]
    free.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert order == ["beside", "large", "behind"]
    assert lock._queue == []


def test_a_range_that_is_held_is_not_held_at_once() -> None:
    lock = RangeLock()
    release = lock.try_hold(0, 10)
    assert release is not None
    assert lock.try_hold(9, 1) is None
    beside = lock.try_hold(10, 5)
    assert beside is not None
    entered = threading.Event()

    def change() -> None:
        with lock.held(5, 1):
            entered.set()

    thread = threading.Thread(target=change)
    thread.start()
    wait_until(lambda: lock._waiting == 1)
    release()
    assert entered.wait(PATIENCE)
    thread.join(PATIENCE)
    assert lock._waiting == 0
    beside()
    assert not lock._queue


def test_the_owner_of_the_lock_keeps_others_out_while_it_enters_and_leaves() -> None:
    own = TokenLock()
    lock, held = RangeLock(own), []

    def change() -> None:
        held.append(lock.try_enter(10, 10))
        with lock.held(20, 10):
            held.append(None)

    thread = threading.Thread(target=change)
    with own:
        mine = lock.enter_locked(0, 10)
        assert mine is not None
        assert lock.enter_locked(9, 1) is None
        thread.start()
        thread.join(0.1)
        assert lock._queue == [mine]
        lock.leave_locked(mine)
    thread.join(PATIENCE)
    assert held[0] is not None
    assert lock._queue == [held[0]]
