import errno
import threading
from functools import partial

import pytest

from tests.polling import wait_until
from vscsihba.block import Views
from vscsihba.handlers.shared.abandonable_pool import AbandonablePool, attempt

PATIENCE = 10


def test_results_and_failures_come_back() -> None:
    pool = AbandonablePool("test", 2)
    assert pool.submit(lambda: 42).result(PATIENCE) == 42
    with pytest.raises(OSError, match="ZeroDivisionError: integer division"):
        pool.submit(lambda: 1 // 0).result(PATIENCE)
    pool.close()
    pool.join()


@pytest.mark.parametrize("kind", [OSError, ValueError, SystemExit])
def test_a_request_that_has_failed_keeps_no_view(kind: type[BaseException], no_collection: None) -> None:
    room, failed = bytearray(1), 0

    def fail(views: Views) -> None:
        raise kind(errno.EIO, "gone")

    pool = AbandonablePool("test", 1)
    for run in (attempt, lambda job: pool.submit(job).result(PATIENCE)):
        try:
            run(partial(fail, [memoryview(room)]))
        except BaseException:  # noqa: BLE001 - pytest.raises would keep the traceback
            failed += 1
        wait_until(lambda: not is_viewed(room), limit=PATIENCE)
    assert failed == 2
    pool.close()
    pool.join()


def is_viewed(room: bytearray) -> bool:
    """Return whether there is a view of a bytearray, which then cannot change its size."""
    try:
        room.append(0)
    except BufferError:
        return True
    return False


def test_so_many_run_at_once_and_no_more() -> None:
    pool, met, seen = AbandonablePool("test", 2), threading.Barrier(2, timeout=PATIENCE), set()

    def job() -> None:
        met.wait()
        seen.add(threading.current_thread().name)

    for future in [pool.submit(job) for _ in range(4)]:
        future.result(PATIENCE)
    assert seen == {"test-0", "test-1"}
    pool.close()


def test_who_asked_does_not_wait_for_ever() -> None:
    pool, free = AbandonablePool("test", 1), threading.Event()
    future = pool.submit(lambda: free.wait(PATIENCE))
    with pytest.raises(TimeoutError, match="no answer within") as late:
        future.result(0.01)
    assert late.value.errno == errno.ETIMEDOUT
    free.set()
    assert future.result(PATIENCE)


def test_what_was_asked_before_closing_still_runs() -> None:
    pool, free = AbandonablePool("test", 1), threading.Event()
    futures = [pool.submit(lambda: free.wait(PATIENCE)), pool.submit(lambda: True)]
    pool.close()
    pool.close()
    with pytest.raises(OSError, match="not used any more"):
        pool.submit(lambda: None)
    assert not pool.join(0)
    free.set()
    assert pool.join(PATIENCE)
    assert [future.result(0) for future in futures] == [True, True]
