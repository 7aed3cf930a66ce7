"""Commands a second, from counters."""

from vscsihba.daemon.rates import Rates

NONE = {"reads": 0, "writes": 0, "others": 0, "errors": 0, "read_bytes": 1 << 40}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_between_two_looks() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert rates.of(0, 1, NONE) is None
    clock.now += 2
    assert rates.of(0, 1, NONE | {"reads": 100, "errors": 20}) == 60.0
    assert rates.of(0, 2, NONE) is None, "another LUN"
    clock.now += 1
    assert rates.of(0, 1, NONE | {"reads": 100, "errors": 20}) == 0.0


def test_the_first_look_at_a_new_lun_has_a_rate() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.of(0, 1, NONE | {"reads": 500})  # another disk that was there before
    rates.begin([(0, 1)])
    assert rates.of(0, 1, NONE) is None, "too early"
    clock.now += 2
    assert rates.of(0, 1, NONE | {"reads": 30}) == 15.0


def test_two_looks_at_once_tell_the_same() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.of(0, 0, NONE)
    clock.now += 1
    assert rates.of(0, 0, NONE | {"writes": 10}) == 10.0
    clock.now += 0.01
    assert rates.of(0, 0, NONE | {"writes": 10}) == 10.0


def test_an_engine_that_begins_anew_has_no_rate_at_first() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.of(0, 0, NONE | {"reads": 500})
    clock.now += 1
    assert rates.of(0, 0, NONE | {"reads": 5}) is None
    clock.now += 1
    assert rates.of(0, 0, NONE | {"reads": 6}) == 1.0
