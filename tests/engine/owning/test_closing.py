"""Closing on another thread: an error is reported once, to the waiting starter or in the log."""

import threading
from collections.abc import Callable

import pytest

from vscsihba.engine.owning.closing import Closing

LIMIT = 60.0


class Ended(threading.Event):
    """The end of a closing, with a function that is called at the beginning of each wait or look."""

    def __init__(self) -> None:
        super().__init__()
        self.at_wait: Callable[[], object] = bool
        self.at_look: Callable[[], object] = bool

    def wait(self, timeout: float | None = None) -> bool:
        self.at_wait()
        return super().wait(timeout)

    def is_set(self) -> bool:
        is_set = super().is_set()
        self.at_look()
        return is_set


class Run:
    """A closing that waits for `gate` and may fail at its end."""

    def __init__(self, error: OSError | None = None) -> None:
        self.gate, self.ended, self.calls = threading.Event(), Ended(), list[str]()
        self.error = error
        self.closing = Closing(self.wait, self.close)
        self.closing._ended = self.ended
        self.thread = threading.Thread(target=self.closing.run)
        self.thread.start()

    def wait(self) -> None:
        assert self.gate.wait(LIMIT)
        self.calls.append("wait")

    def close(self) -> None:
        self.calls.append("close")
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Let it end, and wait for that."""
        self.gate.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


LOST = OSError(5, "Input/output error")


def test_an_end_in_time_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    run = Run()
    run.ended.at_wait = run.gate.set
    try:
        assert run.closing.done(LIMIT)
    finally:
        run.end()
    assert run.calls == ["wait", "close"], "commands end before the storage is closed"
    assert caplog.text == ""


def test_an_error_in_time_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(LOST)
    run.end()
    with pytest.raises(OSError, match="Input/output error"):
        run.closing.done(0)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "the storage has answered"), (LOST, "closed late, with an error: [Errno 5] Input/output error")],
)
def test_an_end_that_nobody_has_waited_for_is_logged(
    caplog: pytest.LogCaptureFixture, error: OSError | None, text: str
) -> None:
    run = Run(error)
    assert not run.closing.done(0)
    assert caplog.text == ""
    run.end()
    assert text in caplog.text
    assert len(caplog.records) == 1


def test_an_end_at_the_very_moment_of_giving_up_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(LOST)

    def end_meanwhile() -> None:
        run.ended.at_look = bool
        run.gate.set()
        run.thread.join(0.5)  # it cannot end while its starter decides

    run.ended.at_look = end_meanwhile
    assert not run.closing.done(0)
    run.end()
    assert "closed late" in caplog.text
