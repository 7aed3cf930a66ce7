"""Calls across threads: none is lost, and none delays the rings for long."""

import select
import threading

import pytest

from vscsihba.engine.serving.call_queue import CallQueue


def readable(queue: CallQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def test_posting_wakes_once_for_many() -> None:
    queue, seen = CallQueue(), list[int]()
    for number in range(5):
        queue.post(lambda number=number: seen.append(number))  # type: ignore[misc]
    assert readable(queue)
    queue.run()
    assert seen == [0, 1, 2, 3, 4]
    assert not readable(queue)
    queue.close()


def test_a_call_that_posts_again_is_left_to_the_next_run() -> None:
    queue, seen = CallQueue(), list[str]()

    def again() -> None:
        seen.append("run")
        queue.post(again)

    queue.post(again)
    queue.run()
    assert seen == ["run"]
    assert readable(queue)
    queue.close()


def test_later_calls_come_last_and_once() -> None:
    queue, seen = CallQueue(), list[str]()

    def first() -> None:
        queue.later(lambda: seen.append("last"))
        seen.append("first")

    queue.post(first)
    queue.post(lambda: seen.append("second"))
    queue.run()
    queue.run()
    assert seen == ["first", "second", "last"]
    queue.close()


def test_no_call_of_many_threads_is_left_behind() -> None:
    queue, seen = CallQueue(), list[int]()

    def post() -> None:
        for number in range(2000):
            queue.post(lambda number=number: seen.append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(seen) < 8000:
        assert select.select([queue], [], [], 10)[0], "a call was posted without a wake-up"
        queue.run()
    for thread in threads:
        thread.join()
    queue.close()


def test_posting_to_a_closed_mailbox_is_harmless() -> None:
    queue, seen = CallQueue(), list[int]()
    queue.close()
    queue.post(lambda: seen.append(1))
    assert seen == []


def test_a_call_that_fails_is_logged_and_the_others_are_made(caplog: pytest.LogCaptureFixture) -> None:
    queue, seen = CallQueue(), list[str]()

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    for call in (fail, lambda: seen.append("next"), lambda: queue.later(fail)):
        queue.post(call)
    queue.run()
    assert seen == ["next"]
    assert caplog.text.count("ZeroDivisionError: a bug") == 2
    queue.close()


def test_pending_tells_of_calls_that_were_not_made() -> None:
    queue = CallQueue()
    assert not queue.pending()
    queue.post(lambda: None)
    assert queue.pending()
    queue.run()
    assert not queue.pending()
    queue.close()
