import threading
import time

import pytest

from vscsihba.handlers.shared.rwlock import RWLock

PATIENCE = 10


def test_many_are_inside_together() -> None:
    gate, met = RWLock(), threading.Barrier(3, timeout=PATIENCE)

    def enter() -> None:
        with gate.together():
            met.wait()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not met.broken


def test_one_alone_waits_for_those_inside_and_keeps_others_out() -> None:
    gate, seen, waiting = RWLock(), [], threading.Event()

    def alone() -> None:
        waiting.set()
        with gate.alone():
            seen.append("alone")

    def together() -> None:
        with gate.together():
            seen.append("together")

    with gate.together():
        first = threading.Thread(target=alone)
        first.start()
        assert waiting.wait(PATIENCE)
        while not gate._alone:
            first.join(0.001)
        second = threading.Thread(target=together)
        second.start()
        assert seen == []
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert seen == ["alone", "together"]


def test_a_failure_inside_opens_the_gate_again() -> None:
    gate = RWLock()
    for way in (gate.alone, gate.together, gate.alone):
        with pytest.raises(ZeroDivisionError), way():
            _ = 1 / 0
    with gate.alone():
        pass


def test_a_wait_that_is_interrupted_leaves_the_gate_open(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = RWLock()

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with gate.together():
        with monkeypatch.context() as patch:
            patch.setattr(gate._changed, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt), gate.alone():
                pass
        gate.enter_briefly()
        gate.leave()


def test_a_brief_visit_and_one_alone_keep_each_other_out() -> None:
    gate, seen = RWLock(), []

    def alone() -> None:
        with gate.alone():
            seen.append("alone")

    with gate.together():
        gate.enter_briefly()
        with pytest.raises(BlockingIOError):
            gate.enter_briefly()
        gate.leave()
    with gate.alone(), pytest.raises(BlockingIOError):
        gate.enter_briefly()
    gate.enter_briefly()
    waiting = threading.Thread(target=alone)
    waiting.start()
    while not gate._alone:
        time.sleep(0.001)
    time.sleep(0.01)
    assert seen == []
    with pytest.raises(BlockingIOError):
        gate.enter_briefly()
    gate.leave()
    waiting.join(PATIENCE)
    assert seen == ["alone"]
    gate.enter_briefly()
    gate.leave()
