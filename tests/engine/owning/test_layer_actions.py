"""Actions of the layers of a served LUN."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import pytest

from vscsihba.engine.owning.layer_actions import LayerActions, target_of
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.actions import Action, NoArguments, ReportProgress, quiet
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.options import Options
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Stack, build

MIB = 1 << 20


class Size(Options):
    size: int


class Steps(Options):
    count: int


class Acting(PassThrough):
    """A handler with an action in steps that the test sees."""

    name = "acting"
    began = threading.Event()

    def actions(self) -> Mapping[str, Action[Any]]:
        return {
            "work": Action("work without end", NoArguments, self._work),
            "count": Action("report progress", Steps, self._count),
            "grow": Action("get another size", Size, lambda to, _: self.next.resize(to.size), disturbs=True),
        }

    def _count(self, steps: Steps, progress: ReportProgress) -> None:
        for number in range(steps.count):
            progress(number, steps.count)

    def _work(self, _nothing: NoArguments, progress: ReportProgress) -> None:
        self.began.set()
        while True:
            progress(0, 1)


class WithActing(Registry):
    def get(self, name: str) -> Any:
        return Acting if name == "acting" else super().get(name)


@pytest.fixture
def stack() -> Iterator[Stack]:
    Acting.began.clear()
    made = build({"handler": "acting", "next": {"handler": "memory", "size": MIB}}, registry=WithActing())
    with made:
        yield made


def test_what_is_known(stack: Stack) -> None:
    known = LayerActions(stack).known()
    assert set(known) == {"acting"}
    grow = known["acting"]["grow"]
    assert isinstance(grow, dict)
    assert (grow["summary"], grow["disturbs"]) == ("get another size", True)
    assert [(argument["name"], argument["required"]) for argument in grow["arguments"]] == [("size", True)]
    assert target_of(known, "work") == "acting"


def test_a_new_size_is_noticed(stack: Stack) -> None:
    actions = LayerActions(stack)
    assert actions.disturbs("acting", "grow")
    outcome = actions.run("acting", "grow", {"size": 2 * MIB}, quiet)
    assert (outcome.result, outcome.size, outcome.document) == (None, 2 * MIB, None)
    assert actions.run("acting", "grow", {"size": 2 * MIB}, quiet).size is None


def test_an_action_begins_and_the_end_comes_under_one_lock(stack: Stack) -> None:
    """Else an action could begin after `wait` has found none."""
    actions = LayerActions(stack)
    with mock.patch.object(actions, "_idle", mock.MagicMock()) as lock:
        actions.run("acting", "count", {"count": 0}, quiet)
        assert lock.__enter__.call_count == 2
        actions.stop()
        assert lock.__enter__.call_count == 3


def test_progress_is_passed_on(stack: Stack) -> None:
    told: list[tuple[int, int]] = []
    LayerActions(stack).run("acting", "count", {"count": 2}, lambda done, of: told.append((done, of)))
    assert told == [(0, 2), (1, 2)]


def test_the_end_ends_what_is_under_way_and_waits_for_it(stack: Stack) -> None:
    actions = LayerActions(stack)
    failures: list[Exception] = []

    def work() -> None:
        try:
            actions.run("acting", "work", {}, quiet)
        except HostError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert Acting.began.wait(20)
    actions.stop()
    assert actions.wait(60)
    thread.join(20)
    assert [str(error) for error in failures] == ["the engine that served the LUN is releasing it; try again"]
    with pytest.raises(HostError, match="is releasing it"):
        actions.run("acting", "grow", {"size": 2 * MIB}, quiet)


def test_what_nobody_can_do() -> None:
    one: dict[str, dict[str, object]] = {"mirror": {"status": {}}, "snapshot": {"list": {}, "status": {}}}
    with pytest.raises(
        UsageError, match="several layers have an action 'status'; name one of them: mirror, snapshot"
    ):
        target_of(one, "status")
    with pytest.raises(
        UsageError, match="'take'; its actions are: mirror status, snapshot list, snapshot status"
    ):
        target_of(one, "take")
    with pytest.raises(UsageError, match="its layers have no actions"):
        target_of({}, "take")
