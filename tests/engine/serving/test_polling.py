"""Polling: spinning and sleeping are measured, and the quicker one is held."""

import pytest

from vscsihba.engine.serving.polling import HOLD, PAUSE, PROBE, VARIABLE, Polling, longest_spin
from vscsihba.engine.serving.pump import Pump
from vscsihba.errors import UsageError

MOST = 0.001


def serve(polling: Polling, rounds: int, *, looking: float, sleeping: float) -> list[bool]:
    """Note rounds of one command that take these seconds; return the way of each round."""
    ways = []
    for _ in range(rounds):
        ways.append(polling.window > 0)
        polling.note(looking if polling.window else sleeping, 1)
    return ways


def test_begins_by_sleeping_and_then_tries_both() -> None:
    ways = serve(Polling(MOST), 2 * PROBE, looking=1e-5, sleeping=1e-4)
    assert ways == [False] * PROBE + [True] * PROBE


def test_looks_where_that_is_quicker_and_tries_sleeping_now_and_then() -> None:
    polling = Polling(MOST)
    serve(polling, 10 * (HOLD + PROBE), looking=1e-5, sleeping=1e-4)
    while polling.window:
        polling.note(1e-5, 1)
    serve(polling, PROBE, looking=1e-5, sleeping=1e-4)
    ways = serve(polling, 2 * (HOLD + PROBE), looking=1e-5, sleeping=1e-4)
    assert ways == ([True] * HOLD + [False] * PROBE) * 2
    assert polling.window == MOST


def test_sleeps_where_looking_gains_little_or_nothing() -> None:
    polling = Polling(MOST)
    serve(polling, 10 * (HOLD + PROBE), looking=9.5e-5, sleeping=1e-4)
    assert serve(polling, HOLD + PROBE, looking=9.5e-5, sleeping=1e-4).count(True) == PROBE


def test_follows_a_load_that_changes() -> None:
    polling = Polling(MOST)
    serve(polling, 10 * (HOLD + PROBE), looking=1e-5, sleeping=1e-4)
    serve(polling, 10 * (HOLD + PROBE), looking=1e-4, sleeping=1e-5)
    assert serve(polling, HOLD + PROBE, looking=1e-4, sleeping=1e-5).count(False) == HOLD


def test_counts_commands_not_rounds() -> None:
    polling = Polling(MOST)
    for _ in range(2 * PROBE):  # a sleeper finds ten times as much, in five times the time
        looking = polling.window > 0
        polling.note(1e-5 if looking else 5e-5, 1 if looking else 10)
    assert polling.window == 0


def test_a_pause_begins_anew_by_sleeping() -> None:
    polling = Polling(MOST)
    serve(polling, 3 * PROBE, looking=1e-5, sleeping=1e-4)
    assert polling.window
    polling.note(PAUSE * 2, 1)
    assert not polling.window


def test_rare_commands_are_never_looked_for() -> None:
    polling = Polling(MOST)
    for _ in range(10 * HOLD):
        polling.note(PAUSE * 2, 1)
        assert not polling.window


def test_rounds_without_a_command_change_nothing() -> None:
    polling = Polling(MOST)
    for _ in range(10 * HOLD):
        polling.note(1e-5, 0)
    assert not polling.window


def test_never_looks_when_told_not_to() -> None:
    assert not any(serve(Polling(0), 10 * HOLD, looking=1e-5, sleeping=1e-4))


@pytest.mark.parametrize(
    ("word", "seconds"), [(None, 0.001), ("", 0.001), ("0", 0), ("250", 0.00025), ("100000", 0.1)]
)
def test_the_environment_says_how_long_to_look(word: str | None, seconds: float) -> None:
    environment = {} if word is None else {VARIABLE: word}
    assert longest_spin(environment, processors=2) == pytest.approx(seconds)


@pytest.mark.parametrize(("word", "seconds"), [(None, 0), ("", 0), ("50", 5e-5)])
def test_nobody_looks_on_the_only_processor_unless_told_to(word: str | None, seconds: float) -> None:
    environment = {} if word is None else {VARIABLE: word}
    assert longest_spin(environment, processors=1) == pytest.approx(seconds)


@pytest.mark.parametrize("word", ["-1", "1ms", "100001", "1e3", "²", " 5"])
def test_what_cannot_be_meant_is_named(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, word)
    with pytest.raises(UsageError, match=f"{VARIABLE}={word}"):
        Pump()
