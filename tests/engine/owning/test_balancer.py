"""The balancer's thread: it reconciles after each change, again when asked to, and after errors."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vscsihba.engine.owning import balancer as module
from vscsihba.engine.owning.balancer import Balancer
from vscsihba.errors import HostError
from vscsihba.threads import end_process

LIMIT = 60


class Settling:
    """A `reconcile` that counts its calls and does what the test says."""

    def __init__(self, *outcomes: float | Exception | None) -> None:
        self._outcomes = list(outcomes)
        self._calls = threading.Semaphore(0)

    def __call__(self) -> float | None:
        self._calls.release()
        outcome = self._outcomes.pop(0) if self._outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def happens(self) -> bool:
        """Tell whether it is called, or was since the last question."""
        return self._calls.acquire(timeout=LIMIT)

    @property
    def happened(self) -> bool:
        """Whether it was called since the last question."""
        return self._calls.acquire(blocking=False)


@contextmanager
def running(settling: Settling) -> Iterator[Balancer]:
    balancer = Balancer(settling)
    balancer.start()
    try:
        yield balancer
    finally:
        balancer.stop()


def test_it_settles_at_the_start_and_after_each_change() -> None:
    with running(settling := Settling()) as balancer:
        for _ in range(3):
            assert settling.happens()
            balancer.changed()
        assert settling.happens()
    assert not settling.happened


def test_a_change_before_the_start_is_not_forgotten() -> None:
    balancer = Balancer(settling := Settling())
    balancer.changed()
    balancer.start()
    assert settling.happens()
    assert settling.happens()
    balancer.stop()


def test_what_is_not_settled_is_tried_again() -> None:
    with running(settling := Settling(0.01, 0.01)):
        assert all(settling.happens() for _ in range(3))


@pytest.mark.parametrize(
    "fault", [HostError("configfs refuses"), OSError(5, "Input/output error"), MemoryError("too little")]
)
def test_a_failure_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.01)
    with caplog.at_level(logging.ERROR), running(settling := Settling(fault)):
        assert settling.happens()
        assert settling.happens()
    assert f"LUNs cannot be assigned to engines: {fault}" in caplog.text


def test_a_bug_ends_the_process_that_would_take_over_nothing_any_more() -> None:
    balancer = Balancer(Settling(KeyError("a bug")))
    told: list[BaseException] = []
    balancer._thread._died = lambda _name, error: told.append(error)
    balancer.start()
    balancer._thread.join(LIMIT)
    assert [str(error) for error in told] == ["'a bug'"]
    assert Balancer(Settling())._thread._died is end_process


def test_what_hangs_is_not_waited_for_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    gate, settling = threading.Event(), threading.Event()

    def settle() -> None:
        settling.set()
        assert gate.wait(LIMIT)

    balancer = Balancer(settle)
    balancer.start()
    assert settling.wait(LIMIT)
    balancer.stop(patience=0)
    assert "is not waited for" in caplog.text
    gate.set()
    balancer._thread.join(LIMIT)


def test_nothing_is_settled_after_the_stop() -> None:
    with running(settling := Settling()) as balancer:
        assert settling.happens()
    balancer.changed()
    assert not settling.happened
