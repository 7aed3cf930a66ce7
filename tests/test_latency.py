"""Latency histograms, compared with the latencies themselves."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsihba.latency import BUCKETS, KINDS, SIZE, Histogram, Latencies, bounds_of, bucket_of, merged
from vscsihba.stats import Tally

NANOSECONDS = st.integers(0, 2**42 - 1)


def histogram(*latencies: int) -> Histogram:
    """Return the histogram of latencies in nanoseconds."""
    counted = Latencies()
    for latency in latencies:
        counted.add(Tally.READS, (latency + 0.5) / 1e9)  # the product of the two may be a little less
    return counted.snapshot()["reads"]


@given(NANOSECONDS)
def test_a_bucket_has_its_latencies_and_is_narrow(latency: int) -> None:
    first, following = bounds_of(bucket_of(latency))
    assert first <= latency < following
    assert following - first <= max(1, first / 32)


def test_buckets_lie_one_behind_the_other_and_none_is_missing() -> None:
    bounds = [bounds_of(bucket) for bucket in range(BUCKETS)]
    assert bounds[0][0] == 0
    assert all(one[1] == following[0] for one, following in pairwise(bounds))
    assert [bucket_of(first) for first, _ in bounds] == list(range(BUCKETS))


def test_the_longest_latencies_share_the_last_bucket() -> None:
    assert bucket_of(2**60) == BUCKETS - 1
    counted = Latencies()
    counted.add(Tally.OTHERS, 1e6)
    counted.add(Tally.OTHERS, 4e12)
    assert counted.snapshot()["others"].buckets == {BUCKETS - 1: 2}


@given(st.lists(NANOSECONDS, min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_and_sums_are_within_three_per_cent(latencies: list[int], part: float) -> None:
    measured = histogram(*latencies)
    assert measured.count == len(latencies)
    assert measured.seconds == pytest.approx(sum(latencies) / 1e9, rel=0.03, abs=1e-9 * len(latencies))
    exact = sorted(latencies)[max(0, math.ceil(part * len(latencies)) - 1)]
    found = measured.quantile(part)
    assert found == pytest.approx(exact / 1e9, rel=0.03, abs=1e-9)


def test_without_commands_there_is_no_quantile() -> None:
    assert Histogram({}).quantile(0.5) is None
    assert Histogram({}).seconds == 0


def test_commands_within_limits_are_never_too_many() -> None:
    latencies = [1, 62, 63, 64, 65, 999, 1_000, 1_001, 240_000, 250_001, 10**9 + 1, 10**10]
    limits = [63, 64, 1_000, 250_000, 10**9, 10**11]
    found = histogram(*latencies).cumulative([limit / 1e9 for limit in limits])
    for limit, within in zip(limits, found, strict=True):
        assert within <= sum(latency <= limit for latency in latencies)
        assert within >= sum(latency < limit * 31 / 32 for latency in latencies)
    assert found[-1] == len(latencies)


def test_kinds_are_in_the_order_of_tallies_and_apart() -> None:
    assert list(KINDS) == [tally.name.lower() for tally in Tally]
    counted = Latencies()
    for tally in Tally:
        counted.add(tally, 1e-6, 10**tally)
    assert [each.count for each in counted.snapshot().values()] == [1, 10, 100]


def test_the_difference_of_two_times_is_what_came_between() -> None:
    earlier, later = histogram(5, 5, 900), histogram(5, 5, 5, 900, 10**6)
    assert later.since(earlier) == histogram(5, 10**6)
    assert later.since(later) == Histogram({})
    assert earlier.since(later) == earlier  # the counts have begun anew


@given(st.lists(st.lists(NANOSECONDS, max_size=9), max_size=4))
def test_merged_histograms_are_those_of_all_latencies(groups: list[list[int]]) -> None:
    assert merged(histogram(*group) for group in groups) == histogram(
        *(one for group in groups for one in group)
    )


def test_counts_are_in_the_memory_that_is_given() -> None:
    memory = bytearray(SIZE)
    first = Latencies(memoryview(memory))
    first.add(Tally.WRITES, 2e-3)
    first.release()
    first.add(Tally.WRITES, 2e-3)
    second = Latencies(memoryview(memory))
    assert second.snapshot()["writes"].count == 1
    assert first.snapshot()["writes"].count == 2
    second.clear()
    assert not any(memory)
