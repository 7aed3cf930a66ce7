import errno
import threading

import pytest

from vscsihba.handlers.shared.abandonable_pool import AbandonablePool

PATIENCE = 10


def test_results_and_failures_come_back() -> None:
    lanes = AbandonablePool("test", 2)
    assert lanes.submit(lambda: 42).get(PATIENCE) == 42
    with pytest.raises(OSError, match="ZeroDivisionError: integer division"):
        lanes.submit(lambda: 1 // 0).get(PATIENCE)
    lanes.close()
    lanes.join()


def test_so_many_run_at_once_and_no_more() -> None:
    lanes, met, seen = AbandonablePool("test", 2), threading.Barrier(2, timeout=PATIENCE), set()

    def job() -> None:
        met.wait()
        seen.add(threading.current_thread().name)

    for outcome in [lanes.submit(job) for _ in range(4)]:
        outcome.get(PATIENCE)
    assert seen == {"test-0", "test-1"}
    lanes.close()


def test_who_asked_does_not_wait_for_ever() -> None:
    lanes, free = AbandonablePool("test", 1), threading.Event()
    outcome = lanes.submit(lambda: free.wait(PATIENCE))
    with pytest.raises(TimeoutError, match="no answer within") as late:
        outcome.get(0.01)
    assert late.value.errno == errno.ETIMEDOUT
    free.set()
    assert outcome.get(PATIENCE)


def test_what_was_asked_before_closing_still_runs() -> None:
    lanes, free = AbandonablePool("test", 1), threading.Event()
    outcomes = [lanes.submit(lambda: free.wait(PATIENCE)), lanes.submit(lambda: True)]
    lanes.close()
    lanes.close()
    with pytest.raises(OSError, match="not used any more"):
        lanes.submit(lambda: None)
    assert not lanes.join(0)
    free.set()
    assert lanes.join(PATIENCE)
    assert [outcome.get(0) for outcome in outcomes] == [True, True]
