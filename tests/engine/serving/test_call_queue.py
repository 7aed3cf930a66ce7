"""Calls across threads: none is lost, none starves the rings."""

import select
import threading

import pytest

from vscsihba.engine.serving.call_queue import Mailbox


def readable(mailbox: Mailbox) -> bool:
    return bool(select.select([mailbox], [], [], 0)[0])


def test_posting_wakes_once_for_many() -> None:
    mailbox, seen = Mailbox(), list[int]()
    for number in range(5):
        mailbox.post(lambda number=number: seen.append(number))  # type: ignore[misc]
    assert readable(mailbox)
    mailbox.run()
    assert seen == [0, 1, 2, 3, 4]
    assert not readable(mailbox)
    mailbox.close()


def test_a_call_that_posts_again_is_left_to_the_next_run() -> None:
    mailbox, seen = Mailbox(), list[str]()

    def again() -> None:
        seen.append("run")
        mailbox.post(again)

    mailbox.post(again)
    mailbox.run()
    assert seen == ["run"]
    assert readable(mailbox)
    mailbox.close()


def test_later_calls_come_last_and_once() -> None:
    mailbox, seen = Mailbox(), list[str]()

    def first() -> None:
        mailbox.later(lambda: seen.append("last"))
        seen.append("first")

    mailbox.post(first)
    mailbox.post(lambda: seen.append("second"))
    mailbox.run()
    mailbox.run()
    assert seen == ["first", "second", "last"]
    mailbox.close()


def test_no_call_of_many_threads_is_left_behind() -> None:
    mailbox, seen = Mailbox(), list[int]()

    def post() -> None:
        for number in range(2000):
            mailbox.post(lambda number=number: seen.append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(seen) < 8000:
        assert select.select([mailbox], [], [], 10)[0], "a call was posted without a wake-up"
        mailbox.run()
    for thread in threads:
        thread.join()
    mailbox.close()


def test_posting_to_a_closed_mailbox_is_harmless() -> None:
    mailbox, seen = Mailbox(), list[int]()
    mailbox.close()
    mailbox.post(lambda: seen.append(1))
    assert seen == []


def test_a_call_that_fails_is_logged_and_the_others_are_made(caplog: pytest.LogCaptureFixture) -> None:
    mailbox, seen = Mailbox(), list[str]()

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    for call in (fail, lambda: seen.append("next"), lambda: mailbox.later(fail)):
        mailbox.post(call)
    mailbox.run()
    assert seen == ["next"]
    assert caplog.text.count("ZeroDivisionError: a bug") == 2
    mailbox.close()


def test_pending_tells_of_calls_that_were_not_made() -> None:
    mailbox = Mailbox()
    assert not mailbox.pending()
    mailbox.post(lambda: None)
    assert mailbox.pending()
    mailbox.run()
    assert not mailbox.pending()
    mailbox.close()
