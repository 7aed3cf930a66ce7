"""The engines of an HBA: told the same, replaced when they die, asked again for what did not go."""

import errno
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.daemon.crew_rig import LIMIT, Hba
from vscsihba.daemon import roster
from vscsihba.daemon.crew import Crew
from vscsihba.engine.appearance import Tuning
from vscsihba.engine.lun_request import LunRequest
from vscsihba.errors import HostError
from vscsihba.threads import end_process


@pytest.fixture
def hba(monkeypatch: pytest.MonkeyPatch) -> Hba:
    monkeypatch.setattr(roster, "PAUSES", (0.0, 0.01))
    return Hba()


@pytest.fixture
def crew(hba: Hba) -> Iterator[Crew]:
    made = Crew(3, 2, hba.start)
    made.begin()
    yield made
    made.close()


def request(lun: int = 0) -> LunRequest:
    return LunRequest(lun, {"handler": "memory", "size": 1 << 20})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_every_engine_knows_every_lun_and_its_owner_is_told_first(hba: Hba, crew: Crew) -> None:
    for lun in range(3):
        crew.add(request(lun))
    assert [engine.known for engine in hba.engines] == [{0, 1, 2}] * 2
    assert [number for number, _, _ in hba.asked] == [0, 1, 1, 0, 0, 1]


def test_a_lun_that_cannot_be_leaves_nothing(hba: Hba, crew: Crew) -> None:
    crew.add(request(0))
    hba.refuse[1] = "no such file"
    with pytest.raises(HostError, match="no such file"):
        crew.add(request(1))
    assert hba.linked == {0}
    assert set(crew.requests) == {0}
    assert crew.failures == {}


def test_a_lun_that_only_one_engine_refuses_leaves_nothing(hba: Hba, crew: Crew) -> None:
    first, second = hba.engines
    second._add_lun = refusing  # type: ignore[method-assign, assignment]
    with pytest.raises(HostError, match="it cannot"):
        crew.add(request(0))
    assert hba.linked == first.known == set()


def refusing(_lun: int, _arguments: object) -> None:
    raise HostError("it cannot")


def test_a_lun_goes_from_its_owner_last(hba: Hba, crew: Crew) -> None:
    crew.add(request(1))
    hba.asked.clear()
    crew.remove(1, force=False)
    assert hba.asked == [(0, "remove_lun", 1), (1, "remove_lun", 1)]
    assert hba.linked == set()
    assert crew.requests == {}


def test_a_lun_that_must_not_go_is_served_by_all_again(hba: Hba, crew: Crew) -> None:
    crew.add(request(0))
    first, _ = hba.engines
    first._remove_lun = refusing  # type: ignore[method-assign, assignment]
    with pytest.raises(HostError, match="it cannot"):
        crew.remove(0, force=False)
    assert [engine.known for engine in hba.engines] == [{0}, {0}]
    assert set(crew.requests) == {0}


def test_a_dead_engine_is_replaced_and_told_everything(hba: Hba, crew: Crew) -> None:
    for lun in range(3):
        crew.add(request(lun))
    hba.engines[0].die()
    until(lambda: len(hba.engines) == 3 and hba.engines[2].known == {0, 1, 2})
    assert hba.engines[0].closed
    assert [member.pid for member in crew.members] == [1, 2]


def test_engines_that_die_again_and_again_are_replaced_again_and_again(hba: Hba, crew: Crew) -> None:
    for number in range(10):
        until(lambda number=number: len(hba.engines) == 2 + number)  # type: ignore[misc]
        hba.engines[-1].die()
    until(lambda: len(hba.living) == 2)


def test_all_engines_dead_at_once(hba: Hba, crew: Crew) -> None:
    crew.add(request(0))
    for engine in hba.engines[:2]:
        engine.die()
    until(lambda: len(hba.living) == 2 and all(engine.known == {0} for engine in hba.living))


def test_an_engine_that_dies_while_it_is_asked_spoils_nothing(hba: Hba, crew: Crew) -> None:
    hba.deadly = (0, "add_lun")
    crew.add(request(0))
    assert hba.engines[1].known == {0}
    until(lambda: len(hba.living) == 2 and all(engine.known == {0} for engine in hba.living))


def test_a_death_that_is_noticed_by_who_asks_is_made_good_too(hba: Hba, crew: Crew) -> None:
    for number in range(20):
        hba.living[0].die()
        crew.add(request(number))
    until(lambda: len(hba.living) == 2 and all(engine.known == set(range(20)) for engine in hba.living))


def test_the_last_engine_that_dies_while_it_is_asked_is_an_error(hba: Hba) -> None:
    crew = Crew(3, 1, hba.start)
    crew.begin()
    hba.deadly = (0, "add_lun")
    with pytest.raises(HostError, match="every engine of HBA 3 ended meanwhile"):
        crew.add(request(0))
    until(lambda: len(hba.living) == 1)
    crew.add(request(0))
    assert hba.living[0].known == {0}
    crew.close()


def test_pauses_grow_with_deaths_and_begin_anew_after_a_steady_life(
    hba: Hba, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "PAUSES", (0.0, 3600.0))
    hba.engines[0].die()
    until(lambda: len(hba.living) == 2)
    hba.engines[1].die()
    until(lambda: hba.engines[1].closed)
    assert len(hba.living) == 1, "the second has to wait"
    hba.engines[2].since -= 2 * roster.STEADY
    hba.engines[2].die()
    until(lambda: len(hba.living) == 2)


def test_a_start_that_fails_is_tried_again(hba: Hba, crew: Crew) -> None:
    hba.cannot_start = ["no memory"] * 3
    hba.engines[0].die()
    until(lambda: len(hba.living) == 2)
    assert hba.cannot_start == []


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no process"), MemoryError()])
def test_a_start_that_the_machine_refuses_is_tried_again(hba: Hba, crew: Crew, error: Exception) -> None:
    hba.cannot_start = [error] * 3
    hba.engines[0].die()
    until(lambda: len(hba.living) == 2)
    assert not hba.cannot_start


def test_watching_survives_that_no_descriptor_is_free(
    hba: Hba, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = selectors.DefaultSelector, [1]

    def selector() -> selectors.BaseSelector:
        if left:
            raise OSError(errno.EMFILE, f"no descriptor {left.pop()}")
        return real()

    monkeypatch.setattr(selectors, "DefaultSelector", selector)
    hba.engines[0].die()
    until(lambda: len(hba.living) == 2)
    assert not left
    assert crew._roster._keeper._died is end_process


def test_a_first_start_that_fails_is_an_error_and_leaves_nothing(hba: Hba) -> None:
    crew = Crew(3, 2, hba.start)
    hba.start(3)
    hba.engines.clear()
    hba.cannot_start = ["no memory"]
    with pytest.raises(HostError, match="no memory"):
        crew.begin()
    assert hba.living == []


def test_what_could_not_be_served_at_first_is_served_later(hba: Hba) -> None:
    hba.refuse = {1: "no such file"}
    crew = Crew(3, 1, hba.start)
    crew.resume({0: request(0), 1: request(1)})
    assert crew.failures == {1: "no such file"}
    assert hba.linked == {0}
    hba.refuse.clear()
    until(lambda: hba.linked == {0, 1})
    until(lambda: crew.failures == {})
    crew.close()


def test_engines_that_are_there_are_gone_on_with(hba: Hba) -> None:
    found = [hba.start(3), hba.start(3)]
    for engine in found:
        engine.known = {0, 8}
    hba.linked = {0, 8}
    crew = Crew(3, 2, hba.start, found)
    crew.resume({0: request(0), 1: request(1)})
    assert len(hba.engines) == 2
    assert hba.linked == {0, 1}, "8 was being made when the service ended"
    assert [engine.known for engine in found] == [{0, 1}, {0, 1}]
    crew.close()
    assert all(engine.closed for engine in found)


def test_more_and_fewer_engines(hba: Hba, crew: Crew) -> None:
    crew.add(request(0))
    crew.set_size(4)
    assert [engine.known for engine in hba.living] == [{0}] * 4
    crew.set_size(1)
    assert [engine.pid for engine in hba.living] == [0]
    assert crew.size == 1


def test_more_engines_than_can_be_started_stay_as_many_as_before(hba: Hba, crew: Crew) -> None:
    hba.cannot_start = ["no memory"]
    with pytest.raises(HostError, match="no memory"):
        crew.set_size(3)
    assert crew.size == 2
    until(lambda: len(hba.living) == 2)


def test_growing_is_the_owners_and_everybody_is_told(hba: Hba, crew: Crew) -> None:
    crew.add(request(1))
    crew.enlarge(LunRequest(1, {"handler": "memory", "size": 2 << 20}), 2 << 20)
    assert hba.asked[-2:] == [(1, "resize", 1), (0, "resize", 1)]
    assert crew.requests[1].document == {"handler": "memory", "size": 2 << 20}
    hba.refuse[1] = "no room"
    with pytest.raises(HostError, match="no room"):
        crew.enlarge(request(1), 3 << 20)
    assert crew.requests[1].document == {"handler": "memory", "size": 2 << 20}


def test_tuning_and_describing_are_remembered_for_engines_that_come(hba: Hba, crew: Crew) -> None:
    crew.add(request(0))
    crew.tune(0, Tuning(queue_depth=7))
    assert crew.requests[0].tuning == Tuning(queue_depth=7)
    crew.describe(LunRequest(0, {"handler": "memory", "size": "1MiB"}))
    assert crew.requests[0].document == {"handler": "memory", "size": "1MiB"}


def test_ending_ends_them_all(hba: Hba) -> None:
    crew = Crew(3, 3, hba.start)
    crew.begin()
    crew.end()
    assert hba.living == []
    assert crew.members == []


def test_an_engine_that_dies_while_another_one_hangs_in_a_change_is_replaced_at_once(
    hba: Hba, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "BUSY", 0.01)
    crew.add(request(0))
    hanging, go = threading.Event(), threading.Event()
    first, second = hba.engines
    real = second._add_lun

    def hang(lun: int, arguments: Mapping[str, Any]) -> None:
        hanging.set()
        assert go.wait(LIMIT)
        real(lun, arguments)

    monkeypatch.setattr(second, "_add_lun", hang)
    change = threading.Thread(target=crew.add, args=(request(1),))
    change.start()
    assert hanging.wait(LIMIT)
    first.die()
    until(lambda: len(hba.living) == 2 and hba.living[1].known == {0})
    assert crew.members == hba.living
    assert change.is_alive()
    go.set()
    change.join(LIMIT)
    until(lambda: [engine.known for engine in hba.living] == [{0, 1}, {0, 1}])
    assert set(crew.requests) == {0, 1}
    crew.remove(0, force=False)
    assert [engine.known for engine in hba.living] == [{1}, {1}]


def test_engines_are_not_replaced_while_their_number_changes(
    hba: Hba, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "BUSY", 0.001)
    hanging, go = threading.Event(), threading.Event()
    first, second = hba.engines
    real = second.end

    def hang() -> None:
        hanging.set()
        assert go.wait(LIMIT)
        real()

    monkeypatch.setattr(second, "end", hang)
    beside = crew._roster._beside
    asked: list[Any] = []

    def ask(member: Any) -> bool:
        asked.append(member)
        return beside(member)

    monkeypatch.setattr(crew._roster, "_beside", ask)
    change = threading.Thread(target=crew.set_size, args=(1,))
    change.start()
    assert hanging.wait(LIMIT)
    first.die()
    until(lambda: len(asked) > 2)
    assert len(hba.engines) == 2
    go.set()
    change.join(LIMIT)
    until(lambda: len(hba.living) == 1)
