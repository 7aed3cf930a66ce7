"""Taking over on another thread: either the starter gets the result, or the end is announced."""

import threading

import pytest

from tests.engine.owning.test_closing import LIMIT, Ended
from vscsihba.engine.owning.opening import Opening


class Run:
    """A takeover that waits for `gate`."""

    def __init__(self, settled: bool) -> None:
        self.gate, self.ended, self.settled = threading.Event(), Ended(), settled
        self.late: list[str] = []
        self.opening = Opening(self.take_over, lambda: self.late.append(threading.current_thread().name))
        self.opening._done = self.ended
        self.thread = threading.Thread(target=self.opening.run, name="open-lun0")
        self.thread.start()

    def take_over(self) -> bool:
        assert self.gate.wait(LIMIT)
        return self.settled

    def end(self) -> None:
        """Let it end, and wait for that."""
        self.gate.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("settled", [True, False])
def test_a_result_in_time_is_returned(settled: bool) -> None:
    run = Run(settled)
    run.ended.at_wait = run.gate.set
    try:
        assert run.opening.result(LIMIT) is settled
    finally:
        run.end()
    assert run.late == []


def test_the_end_of_an_opening_that_nobody_waits_for_is_announced() -> None:
    run = Run(settled=True)
    assert run.opening.result(0) is None
    assert run.late == []
    run.end()
    assert run.late == ["open-lun0"]


def test_an_end_at_the_very_moment_of_leaving_is_announced() -> None:
    run = Run(settled=True)

    def end_meanwhile() -> None:
        run.ended.at_look = bool
        run.gate.set()
        run.thread.join(0.5)  # it cannot end while its starter decides

    run.ended.at_look = end_meanwhile
    assert run.opening.result(0) is None
    run.end()
    assert run.late == ["open-lun0"]
