"""The CPU for completions: measured, or fixed by the environment."""

from functools import partial

import pytest

from tests.engine.serving.test_pump import Fake
from vscsihba.engine.serving.completion_affinity import (
    ENGINE,
    HOLD,
    PAUSE,
    PROBE,
    SENDER,
    VARIABLE,
    CompletionAffinity,
    fixed_affinity,
)
from vscsihba.engine.serving.pump import Pump
from vscsihba.errors import HostError, UsageError


class Kernel:
    """A kernel that takes one time with completions on the engine's CPU, and another on the sender's."""

    def __init__(self, *, here: float, there: float) -> None:
        self.told: list[bool] = []
        self.here, self.there = here, there

    def tell(self, here: bool) -> None:
        self.told.append(here)

    def serve(self, completions: CompletionAffinity, seconds: float) -> float:
        """Serve rounds of ten commands for a time; return the fraction completed on the engine's CPU."""
        spent = here = 0.0
        while spent < seconds:
            cost = self.here if self.told[-1] else self.there
            here += cost if self.told[-1] else 0
            spent += cost
            completions.note(cost, 10)
        return here / spent


@pytest.mark.parametrize(("here", "there", "most"), [(0.001, 0.002, True), (0.002, 0.001, False)])
def test_the_quicker_place_is_taken_most_of_the_time(here: float, there: float, most: bool) -> None:
    kernel = Kernel(here=here, there=there)
    part = kernel.serve(CompletionAffinity(kernel.tell), 20 * (HOLD + PROBE))
    assert (part > 0.85) is most
    assert (part < 0.15) is not most
    assert {True, False} == set(kernel.told)


def test_the_kernels_own_way_is_kept_where_the_other_gains_nothing() -> None:
    kernel = Kernel(here=0.001, there=0.001)
    assert kernel.serve(CompletionAffinity(kernel.tell), 20 * (HOLD + PROBE)) < 0.2


def test_the_kernel_is_told_of_changes_only() -> None:
    kernel = Kernel(here=0.001, there=0.002)
    kernel.serve(CompletionAffinity(kernel.tell), 20 * HOLD)
    assert all(one != other for one, other in zip(kernel.told, kernel.told[1:], strict=False))


def test_a_pause_forgets_what_was_measured_and_changes_nothing() -> None:
    kernel = Kernel(here=0.001, there=0.002)
    completions = CompletionAffinity(kernel.tell)
    kernel.serve(completions, 20 * HOLD)
    told = len(kernel.told)
    for _ in range(100):
        completions.note(2 * PAUSE, 1)
    assert len(kernel.told) == told


def test_rounds_without_a_command_change_nothing() -> None:
    kernel = Kernel(here=0.001, there=0.002)
    completions = CompletionAffinity(kernel.tell)
    for _ in range(1000):
        completions.note(0.05, 0)
    assert kernel.told == [False]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_place_that_is_given_is_never_left(fixed: bool) -> None:
    kernel = Kernel(here=0.001, there=0.001)
    kernel.serve(CompletionAffinity(kernel.tell, fixed=fixed), 20 * HOLD)
    assert kernel.told == [fixed]


def test_a_kernel_without_the_choice_is_asked_once() -> None:
    asked = []

    def refuse(here: bool) -> None:
        asked.append(here)
        raise HostError("no such setting")

    completions = CompletionAffinity(refuse)
    for _ in range(1000):
        completions.note(0.01, 10)
    assert asked == [False]


@pytest.mark.parametrize(("word", "engine"), [(None, None), ("", None), (ENGINE, True), (SENDER, False)])
def test_the_environment_may_say_where(word: str | None, engine: bool | None) -> None:
    assert fixed_affinity({} if word is None else {VARIABLE: word}) is engine


@pytest.mark.parametrize("word", ["Engine", "0", " sender", "here"])
def test_what_cannot_be_meant_is_named(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, word)
    with pytest.raises(UsageError, match=f"{VARIABLE}={word}"):
        Pump()


def test_a_pump_finds_out_only_while_it_is_to() -> None:
    pump, ring, kernel = Pump(poll=0), Fake("a"), Kernel(here=1, there=1)
    pump.start()
    pump.calls.post(partial(pump.adapt_completions, kernel.tell))
    pump.calls.post(partial(pump.adapt_completions, kernel.tell))  # again is the same
    pump.calls.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    assert kernel.told == [False]
    pump.calls.post(partial(pump.adapt_completions, None))
    pump.calls.post(partial(pump.adapt_completions, kernel.tell))
    pump.stop()
    assert kernel.told == [False, False]
