"""The adaptive choice: it finds the quicker way, holds it, and leaves it when it becomes slower."""

from itertools import groupby

from vscsihba.engine.serving.adaptive_choice import AdaptiveChoice

PROBE, HOLD = 2, 16


def made(threshold: float = 0.9) -> AdaptiveChoice:
    return AdaptiveChoice(probe=PROBE, hold=HOLD, threshold=threshold)


def lengths(ways: AdaptiveChoice, notes: int, *, first: float, second: float) -> list[tuple[bool, int]]:
    """Note commands that take these seconds; return each way that was taken, and for how many commands."""
    taken = []
    for _ in range(notes):
        taken.append(ways.second)
        ways.note(second if ways.second else first, 1, 1)
    return [(way, len(list(run))) for way, run in groupby(taken)]


def test_a_way_that_is_confirmed_is_kept_for_twice_as_long_up_to_a_limit() -> None:
    runs = lengths(made(), 80, first=3, second=1)
    # The trials of the second way at the beginning run on into its first stretch.
    expected = [
        (False, 2),
        (True, 2 + 4),
        (False, 2),
        (True, 8),
        (False, 2),
        (True, 16),
        (False, 2),
        (True, 16),
    ]
    assert runs[: len(expected)] == expected


def test_another_choice_begins_with_a_short_stretch_again() -> None:
    ways = made()
    lengths(ways, 60, first=3, second=1)
    runs = lengths(ways, 200, first=1, second=9)
    kept = [count for way, count in runs if not way and count > PROBE]
    assert kept[0] == PROBE + 2 * PROBE  # the trial in which it won, and the stretch after that
    assert max(kept) == HOLD


def test_the_first_way_is_kept_where_the_second_gains_little() -> None:
    runs = lengths(made(threshold=0.9), 100, first=1, second=0.95)
    assert all(count == PROBE for way, count in runs if way)


def test_what_was_measured_long_ago_does_not_count_for_ever() -> None:
    ways = made()
    lengths(ways, 2000, first=1, second=3)
    runs = lengths(ways, 200, first=3, second=1)
    assert runs[-1][0] or runs[-2] == (True, HOLD)


def test_beginning_anew_tries_both_again_from_where_it_is_told() -> None:
    ways = made()
    lengths(ways, 50, first=3, second=1)
    assert not ways.fresh
    ways.begin(second=True)
    assert ways.fresh
    assert lengths(ways, 4, first=1, second=3) == [(True, PROBE), (False, PROBE)]


def test_a_way_of_which_nothing_is_known_is_tried_before_any_choice() -> None:
    ways = made()
    for _ in range(PROBE):
        ways.note(1.0, 0, 1)  # no command, no cost
    assert ways.second
    lengths(ways, PROBE, first=1, second=1)
    assert not ways.second
