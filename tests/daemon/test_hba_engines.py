"""The engines of an HBA: told of the same LUNs, replaced when they die, retried after failures."""

import errno
import selectors
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.daemon.fake_engines import LIMIT, FakeEngine, Hba
from tests.polling import wait_until
from vscsihba.daemon import engine_pool
from vscsihba.daemon.hba_engines import HbaEngines
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.errors import HostError
from vscsihba.threads import end_process


@pytest.fixture
def hba(monkeypatch: pytest.MonkeyPatch) -> Hba:
    monkeypatch.setattr(engine_pool, "PAUSES", (0.0, 0.01))
    return Hba()


@pytest.fixture
def engines(hba: Hba) -> Iterator[HbaEngines]:
    made = HbaEngines(3, 2, hba.start)
    made.begin()
    yield made
    made.close()


def request(lun: int = 0) -> LunSpec:
    return LunSpec(lun, {"handler": "memory", "size": 1 << 20})


def test_every_engine_knows_every_lun_and_its_owner_is_told_first(hba: Hba, engines: HbaEngines) -> None:
    for lun in range(3):
        engines.add(request(lun))
    assert [engine.known for engine in hba.engines] == [{0, 1, 2}] * 2
    assert [number for number, _, _ in hba.asked] == [0, 1, 1, 0, 0, 1]


def test_a_lun_that_cannot_be_leaves_nothing(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(0))
    hba.refuse[1] = "no such file"
    with pytest.raises(HostError, match="no such file"):
        engines.add(request(1))
    assert hba.linked == {0}
    assert set(engines.specs) == {0}
    assert engines.failures == {}


def test_a_lun_that_only_one_engine_refuses_leaves_nothing(hba: Hba, engines: HbaEngines) -> None:
    first, second = hba.engines
    second._add_lun = refusing  # type: ignore[method-assign, assignment]
    with pytest.raises(HostError, match="it cannot"):
        engines.add(request(0))
    assert hba.linked == first.known == set()


def refusing(_lun: int, _arguments: object) -> None:
    raise HostError("it cannot")


def test_a_lun_is_removed_from_its_owner_last(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(1))
    hba.asked.clear()
    engines.remove(1, force=False)
    assert hba.asked == [(0, "remove_lun", 1), (1, "remove_lun", 1)]
    assert hba.linked == set()
    assert engines.specs == {}


def test_a_lun_that_cannot_be_removed_is_served_by_all_again(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(0))
    first, _ = hba.engines
    first._remove_lun = refusing  # type: ignore[method-assign, assignment]
    with pytest.raises(HostError, match="it cannot"):
        engines.remove(0, force=False)
    assert [engine.known for engine in hba.engines] == [{0}, {0}]
    assert set(engines.specs) == {0}


def test_a_dead_engine_is_replaced_and_told_everything(hba: Hba, engines: HbaEngines) -> None:
    for lun in range(3):
        engines.add(request(lun))
    hba.engines[0].die()
    wait_until(lambda: len(hba.engines) == 3 and hba.engines[2].known == {0, 1, 2})
    assert hba.engines[0].closed
    assert [engine.pid for engine in engines.engines] == [1, 2]


def test_engines_that_die_again_and_again_are_replaced_again_and_again(hba: Hba, engines: HbaEngines) -> None:
    for number in range(10):
        wait_until(lambda number=number: len(hba.engines) == 2 + number)  # type: ignore[misc]
        hba.engines[-1].die()
    wait_until(lambda: len(hba.living) == 2)


def test_all_engines_dead_at_once(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(0))
    for engine in hba.engines[:2]:
        engine.die()
    wait_until(lambda: len(hba.living) == 2 and all(engine.known == {0} for engine in hba.living))


def test_an_engine_that_dies_during_a_request_does_no_harm(hba: Hba, engines: HbaEngines) -> None:
    hba.deadly = (0, "add_lun")
    engines.add(request(0))
    assert hba.engines[1].known == {0}
    wait_until(lambda: len(hba.living) == 2 and all(engine.known == {0} for engine in hba.living))


def test_an_engine_that_dies_before_a_request_is_replaced_too(hba: Hba, engines: HbaEngines) -> None:
    for number in range(20):
        hba.living[0].die()
        engines.add(request(number))
    wait_until(lambda: len(hba.living) == 2 and all(engine.known == set(range(20)) for engine in hba.living))


def test_the_last_engine_that_dies_during_a_request_is_an_error(hba: Hba) -> None:
    engines = HbaEngines(3, 1, hba.start)
    engines.begin()
    hba.deadly = (0, "add_lun")
    with pytest.raises(HostError, match="every engine of HBA 3 ended meanwhile"):
        engines.add(request(0))
    wait_until(lambda: len(hba.living) == 1)
    engines.add(request(0))
    assert hba.living[0].known == {0}
    engines.close()


def test_pauses_grow_with_deaths_and_begin_anew_after_a_steady_life(
    hba: Hba, engines: HbaEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_pool, "PAUSES", (0.0, 3600.0))
    hba.engines[0].die()
    wait_until(lambda: len(hba.living) == 2)
    hba.engines[1].die()
    wait_until(lambda: hba.engines[1].closed)
    assert len(hba.living) == 1, "the second has to wait"
    hba.engines[2].since -= 2 * engine_pool.STEADY
    hba.engines[2].die()
    wait_until(lambda: len(hba.living) == 2)


def test_a_start_that_fails_is_tried_again(hba: Hba, engines: HbaEngines) -> None:
    hba.cannot_start = ["no memory"] * 3
    hba.engines[0].die()
    wait_until(lambda: len(hba.living) == 2)
    assert hba.cannot_start == []


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no process"), MemoryError()])
def test_a_start_that_the_machine_refuses_is_tried_again(
    hba: Hba, engines: HbaEngines, error: Exception
) -> None:
    hba.cannot_start = [error] * 3
    hba.engines[0].die()
    wait_until(lambda: len(hba.living) == 2)
    assert not hba.cannot_start


def test_watching_survives_that_no_descriptor_is_free(
    hba: Hba, engines: HbaEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = selectors.DefaultSelector, [1]

    def selector() -> selectors.BaseSelector:
        if left:
            raise OSError(errno.EMFILE, f"no descriptor {left.pop()}")
        return real()

    monkeypatch.setattr(selectors, "DefaultSelector", selector)
    hba.engines[0].die()
    wait_until(lambda: len(hba.living) == 2)
    assert not left
    assert engines._pool._watcher._died is end_process


def test_a_first_start_that_fails_is_an_error_and_leaves_nothing(hba: Hba) -> None:
    engines = HbaEngines(3, 2, hba.start)
    hba.start(3)
    hba.engines.clear()
    hba.cannot_start = ["no memory"]
    with pytest.raises(HostError, match="no memory"):
        engines.begin()
    assert hba.living == []


def test_a_lun_that_one_engine_refused_is_added_to_it_later_although_another_one_serves_it(hba: Hba) -> None:
    first = hba.start(3)
    engines = HbaEngines(3, 2, hba.start, [first])
    refusals = [True]

    def refuse_once(lun: int, arguments: Mapping[str, Any]) -> None:
        if refusals:
            raise HostError(f"not now: {refusals.pop()}")
        FakeEngine._add_lun(first, lun, arguments)

    first._add_lun = refuse_once  # type: ignore[method-assign]
    engines.resume({0: request(0)})
    wait_until(lambda: all(engine.known == {0} for engine in hba.living) and not engines.failures)
    assert len(hba.living) == 2
    engines.close()


def test_a_leftover_whose_engine_does_not_answer_is_removed_later(hba: Hba) -> None:
    first = hba.start(3)
    HbaEngines(3, 1, hba.start, [first]).add(request(5))
    silences = [True]

    def silent_once(lun: int, arguments: object) -> Any:
        if silences:
            raise HostError(f"no answer: {silences.pop()}")
        return FakeEngine._status(first, lun, arguments)

    first._status = silent_once  # type: ignore[method-assign, assignment]
    engines = HbaEngines(3, 1, hba.start, [first])
    engines.resume({})
    wait_until(lambda: not hba.linked)
    assert not silences
    engines.close()


def test_a_leftover_that_only_the_kernel_knows_is_removed(hba: Hba) -> None:
    hba.linked = {0, 5}
    engines = HbaEngines(3, 1, hba.start, linked=lambda: hba.linked)
    engines.resume({0: request(0)})
    assert hba.linked == {0}
    engines.close()


def test_without_a_watching_thread_no_engine_is_left(hba: Hba, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise OSError(errno.EAGAIN, "no thread")

    monkeypatch.setattr(engine_pool, "start", refuse)
    with pytest.raises(OSError, match="no thread"):
        HbaEngines(3, 2, hba.start).begin()
    assert hba.living == []


def test_a_lun_that_failed_at_first_is_served_later(hba: Hba) -> None:
    hba.refuse = {1: "no such file"}
    engines = HbaEngines(3, 1, hba.start)
    engines.resume({0: request(0), 1: request(1)})
    assert engines.failures == {1: "no such file"}
    assert hba.linked == {0}
    hba.refuse.clear()
    wait_until(lambda: hba.linked == {0, 1})
    wait_until(lambda: engines.failures == {})
    engines.close()


def test_running_engines_are_adopted(hba: Hba) -> None:
    found = [hba.start(3), hba.start(3)]
    for engine in found:
        engine.known = {0, 8}
    hba.linked = {0, 8}
    engines = HbaEngines(3, 2, hba.start, found)
    engines.resume({0: request(0), 1: request(1)})
    assert len(hba.engines) == 2
    assert hba.linked == {0, 1}, "8 was being made when the service ended"
    assert [engine.known for engine in found] == [{0, 1}, {0, 1}]
    engines.close()
    assert all(engine.closed for engine in found)


def test_more_and_fewer_engines(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(0))
    engines.set_size(4)
    assert [engine.known for engine in hba.living] == [{0}] * 4
    engines.set_size(1)
    assert [engine.pid for engine in hba.living] == [0]
    assert engines.size == 1


def test_more_engines_than_can_be_started_stay_as_many_as_before(hba: Hba, engines: HbaEngines) -> None:
    hba.cannot_start = ["no memory"]
    with pytest.raises(HostError, match="no memory"):
        engines.set_size(3)
    assert engines.size == 2
    wait_until(lambda: len(hba.living) == 2)


def test_growth_is_sent_to_all_engines_the_owner_first(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(1))
    engines.enlarge(LunSpec(1, {"handler": "memory", "size": 2 << 20}), 2 << 20)
    assert hba.asked[-2:] == [(1, "resize", 1), (0, "resize", 1)]
    assert engines.specs[1].document == {"handler": "memory", "size": 2 << 20}
    hba.refuse[1] = "no room"
    with pytest.raises(HostError, match="no room"):
        engines.enlarge(request(1), 3 << 20)
    assert engines.specs[1].document == {"handler": "memory", "size": 2 << 20}


def test_tuning_and_describing_are_remembered_for_engines_that_come(hba: Hba, engines: HbaEngines) -> None:
    engines.add(request(0))
    engines.tune(0, Tuning(queue_depth=7))
    assert engines.specs[0].tuning == Tuning(queue_depth=7)
    engines.describe(LunSpec(0, {"handler": "memory", "size": "1MiB"}))
    assert engines.specs[0].document == {"handler": "memory", "size": "1MiB"}


def test_ending_ends_them_all(hba: Hba) -> None:
    engines = HbaEngines(3, 3, hba.start)
    engines.begin()
    engines.end()
    assert hba.living == []
    assert engines.engines == []


def test_an_engine_that_dies_while_another_one_hangs_in_a_change_is_replaced_at_once(
    hba: Hba, engines: HbaEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_pool, "BUSY", 0.01)
    engines.add(request(0))
    hanging, go = threading.Event(), threading.Event()
    first, second = hba.engines
    real = second._add_lun

    def hang(lun: int, arguments: Mapping[str, Any]) -> None:
        hanging.set()
        assert go.wait(LIMIT)
        real(lun, arguments)

    monkeypatch.setattr(second, "_add_lun", hang)
    change = threading.Thread(target=engines.add, args=(request(1),))
    change.start()
    assert hanging.wait(LIMIT)
    first.die()
    wait_until(lambda: len(hba.living) == 2 and hba.living[1].known == {0})
    assert engines.engines == hba.living
    assert change.is_alive()
    go.set()
    change.join(LIMIT)
    wait_until(lambda: [engine.known for engine in hba.living] == [{0, 1}, {0, 1}])
    assert set(engines.specs) == {0, 1}
    engines.remove(0, force=False)
    assert [engine.known for engine in hba.living] == [{1}, {1}]


def test_engines_are_not_replaced_while_their_number_changes(
    hba: Hba, engines: HbaEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_pool, "BUSY", 0.001)
    hanging, go = threading.Event(), threading.Event()
    first, second = hba.engines
    real = second.end

    def hang() -> None:
        hanging.set()
        assert go.wait(LIMIT)
        real()

    monkeypatch.setattr(second, "end", hang)
    ask_engines = engines._pool._on_start_during_change
    asked: list[Any] = []

    def ask(engine: Any) -> bool:
        asked.append(engine)
        return ask_engines(engine)

    monkeypatch.setattr(engines._pool, "_on_start_during_change", ask)
    change = threading.Thread(target=engines.set_size, args=(1,))
    change.start()
    assert hanging.wait(LIMIT)
    first.die()
    wait_until(lambda: len(asked) > 2)
    assert len(hba.engines) == 2
    go.set()
    change.join(LIMIT)
    wait_until(lambda: len(hba.living) == 1)
