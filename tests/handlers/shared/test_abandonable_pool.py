import errno
import threading

import pytest

from vscsihba.handlers.shared.abandonable_pool import AbandonablePool

PATIENCE = 10


def test_results_and_failures_come_back() -> None:
    pool = AbandonablePool("test", 2)
    assert pool.submit(lambda: 42).result(PATIENCE) == 42
    with pytest.raises(OSError, match="ZeroDivisionError: integer division"):
        pool.submit(lambda: 1 // 0).result(PATIENCE)
    pool.close()
    pool.join()


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
