"""Worker threads: their number is limited, and the process does not wait for them at its end."""

import errno
import select
import threading
from collections.abc import Callable

import pytest

from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.workers import Workers
from vscsihba.errors import NotBegunError


def refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def run_until(queue: CallQueue, done: Callable[[], bool]) -> None:
    while not done():
        assert select.select([queue], [], [], 10)[0]
        queue.run()


def test_results_come_back_on_the_mailboxs_thread() -> None:
    queue, got = CallQueue(), list[tuple[int | None, Exception | None, str]]()
    workers: Workers[int] = Workers("w", 2, queue)

    def note(value: int | None, error: Exception | None) -> None:
        got.append((value, error, threading.current_thread().name))

    workers.submit(lambda: 42, note)
    run_until(queue, lambda: bool(got))
    assert got == [(42, None, threading.current_thread().name)]
    workers.close()


def test_an_error_is_carried_back() -> None:
    queue, got = CallQueue(), list[Exception | None]()
    workers: Workers[int] = Workers("w", 1, queue)
    workers.submit(lambda: 1 // 0, lambda _value, error: got.append(error))
    run_until(queue, lambda: bool(got))
    assert isinstance(got[0], ZeroDivisionError)
    workers.close()


def test_no_more_than_the_limit_run_at_once() -> None:
    queue, done = CallQueue(), list[None]()
    workers: Workers[None] = Workers("w", 3, queue)
    lock, gate = threading.Lock(), threading.Semaphore(0)
    running, most = 0, 0

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.acquire()
        with lock:
            running -= 1

    for _ in range(10):
        workers.submit(job, lambda value, _error: done.append(value))
    for _ in range(10):
        gate.release()
    run_until(queue, lambda: len(done) == 10)
    assert 1 <= most <= 3
    workers.close()


def test_idle_threads_end_on_close() -> None:
    queue, done = CallQueue(), list[None]()
    workers: Workers[None] = Workers("ending", 2, queue)
    workers.submit(lambda: None, lambda value, _error: done.append(value))
    run_until(queue, lambda: bool(done))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("ending")]
    workers.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_where_no_thread_can_be_started_those_that_are_there_do_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, gate = CallQueue(), threading.Event()
    got: list[Exception | None] = []
    workers: Workers[bool] = Workers("w", 4, queue)
    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers.submit(gate.wait, lambda _value, error: got.append(error))
    run_until(queue, lambda: bool(got))
    assert isinstance(got[0], NotBegunError)
    assert got[0].errno == errno.EAGAIN
    assert workers.busy == len(got) - 1
    monkeypatch.setattr(threading.Thread, "start", real)
    workers.submit(gate.wait, lambda _value, error: got.append(error))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers.submit(gate.wait, lambda _value, error: got.append(error))
    assert workers.busy == 2
    gate.set()
    run_until(queue, lambda: len(got) == 3)
    assert got[1:] == [None, None]
    workers.close()


def test_the_end_of_a_job_can_be_told_on_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told, ended = list[tuple[int | None, str]](), threading.Event()
    workers: Workers[int] = Workers("own", 1, CallQueue())

    def note(value: int | None, error: Exception | None) -> None:
        told.append((value, f"{threading.current_thread().name} {error}"))
        ended.set()

    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", refuse)
        with pytest.raises(NotBegunError):
            workers.run(lambda: 42, note)
    assert not told, "it was not begun"
    workers.run(lambda: 42, note)
    assert ended.wait(10)
    assert told == [(42, "own-1 None")]
    assert workers.busy == 0
    workers.close()


def test_a_thread_is_started_for_each_job_up_to_the_limit_while_others_run() -> None:
    gate, running, ended = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
    workers: Workers[bool] = Workers("several", 2, CallQueue())
    names = set[str]()

    def short() -> bool:
        names.add(threading.current_thread().name)
        return True

    def job() -> bool:
        running.release()
        return gate.wait(60)  # longer than the test waits for both

    for _ in range(3):
        workers.run(short, lambda _value, _error: ended.release())
        assert ended.acquire(timeout=10)
    assert names == {"several-1"}, "jobs one after the other need one thread"
    assert not [thread for thread in threading.enumerate() if thread.name == "several-2"]
    for _ in range(2):
        workers.run(job, lambda _value, _error: None)
    assert running.acquire(timeout=10)
    assert running.acquire(timeout=10), "the second one does not wait for the end of the first"
    gate.set()
    workers.close()


def test_a_job_whose_submission_fails_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise ValueError("something that nobody expects")

    queue, ran = CallQueue(), list[int]()
    workers: Workers[None] = Workers("w", 1, queue)
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", fail)
        with pytest.raises(ValueError, match="nobody expects"):
            workers.submit(lambda: ran.append(1), lambda _value, _error: ran.append(2))
    assert workers.busy == 0
    workers.submit(lambda: ran.append(3), lambda _value, _error: ran.append(4))
    run_until(queue, lambda: 4 in ran)
    assert ran == [3, 4]
    workers.close()
