"""The assignment of LUNs: all engines compute the same one; each LUN has one owner; the load is even."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vscsihba.engine.owning.assignment import EngineInfo, assign_luns

LUNS = st.frozensets(st.integers(0, 30), max_size=20)
MEMBERS = st.frozensets(
    st.builds(EngineInfo, st.integers(0, 99), st.integers(1, 99), LUNS), max_size=6
).filter(lambda engines: len({engine.pid for engine in engines}) == len(engines))


def engines(*luns: set[int]) -> frozenset[EngineInfo]:
    return frozenset(EngineInfo(since, 100 + since, frozenset(known)) for since, known in enumerate(luns))


def test_one_engine_has_all() -> None:
    assert assign_luns(engines({0, 1, 2})) == {0: 100, 1: 100, 2: 100}


def test_two_engines_have_half_each() -> None:
    owners = assign_luns(engines({0, 1, 2, 3}, {0, 1, 2, 3}))
    assert Counter(owners.values()) == {100: 2, 101: 2}


def test_a_lun_goes_to_an_engine_that_knows_it() -> None:
    assert assign_luns(engines({0, 1}, {1, 2})) == {0: 100, 2: 101, 1: 101}


def test_nobody_is_no_share() -> None:
    assert assign_luns(frozenset()) == {}


@given(MEMBERS)
def test_every_known_lun_has_one_owner_that_knows_it(engines: frozenset[EngineInfo]) -> None:
    owners = assign_luns(engines)
    knows = {engine.pid: engine.luns for engine in engines}
    assert owners.keys() == frozenset().union(*knows.values())
    assert all(lun in knows[pid] for lun, pid in owners.items())


@given(MEMBERS, st.integers(0, 99), st.integers(0, 40))
def test_equals_have_equal_shares(engines: frozenset[EngineInfo], first: int, count: int) -> None:
    luns = frozenset(range(first, first + count))
    equals = frozenset(EngineInfo(engine.since, engine.pid, luns) for engine in engines)
    given_away = Counter(assign_luns(equals).values())
    counts = [given_away[engine.pid] for engine in equals]
    assert not counts or max(counts) - min(counts) <= 1


@given(MEMBERS, st.integers(0, 30), st.sampled_from(["comes", "goes"]))
def test_a_lun_that_comes_or_goes_moves_no_other(engines: frozenset[EngineInfo], lun: int, what: str) -> None:
    changed = frozenset(
        EngineInfo(engine.since, engine.pid, engine.luns | {lun} if what == "comes" else engine.luns - {lun})
        for engine in engines
    )
    before, after = dict(assign_luns(engines)), dict(assign_luns(changed))
    before.pop(lun, None)
    after.pop(lun, None)
    assert before == after
