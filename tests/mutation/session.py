"""The pytest plugin that runs the tests nearest to a module, once for each fault.

Collects once. Every run after that is forked from the process that has collected. Tests that do not
execute the line with the fault are left out, and the quickest go first. Does not know what is done with
the verdicts.
"""

import ast
import gc
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

import hypothesis
import pytest

from tests.mutation.children import end_after, in_a_child
from tests.mutation.measured import Measured, Measurements
from tests.mutation.mutants import Mutant
from tests.mutation.swap import Functions

_SETTINGS: Final = "_hypothesis_internal_use_settings"

_UNKNOWN: Final = 20.0
"""Seconds that a test is given that has not been measured."""
NOT_EXECUTED: Final = "no test executes it"
_NOT_EXECUTED: Final = {"by": NOT_EXECUTED, "hung": False, "seconds": 0.0}

Send = Callable[[dict[str, Any]], None]


def limit(seconds: float) -> float:
    """Return how long tests may take, in seconds, by their processor time without a fault.

    A busy machine gives them little of its time, and a fault must not count as noticed because of that.
    """
    return 20.0 + 30.0 * seconds


def run_until_failure(items: Sequence[pytest.Item], seconds: Sequence[float]) -> str:
    """Run tests up to the first that fails; return its name, empty if none does.

    Args:
        items: The tests.
        seconds: The time that each takes without a fault. The process ends if one takes much longer.
    """
    for item, following, usual in zip(items, [*items[1:], None], seconds, strict=True):
        end_after(limit(usual))
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return item.nodeid
    return ""


def use_few_examples(items: Sequence[pytest.Item]) -> None:
    """Apply the Hypothesis profile "mutation" to tests that have settings of their own, too."""
    profile = hypothesis.settings.get_profile("mutation")
    for item in items:
        function = getattr(item, "obj", None)
        if isinstance(own := getattr(function, _SETTINGS, None), hypothesis.settings):
            setattr(getattr(function, "__func__", function), _SETTINGS, _few(own, profile))
        case = getattr(item, "cls", None)
        if isinstance(own := getattr(case, "settings", None), hypothesis.settings):
            case.settings = _few(own, profile)  # type: ignore[union-attr] # a state machine's test case


def _few(own: hypothesis.settings, profile: hypothesis.settings) -> hypothesis.settings:
    return hypothesis.settings(
        own,
        max_examples=min(own.max_examples, profile.max_examples),
        stateful_step_count=min(own.stateful_step_count, profile.stateful_step_count),
        derandomize=True,
        database=None,
        phases=profile.phases,
    )


class Session:
    """Runs collected tests with each of some faults, in place of pytest's own loop.

    Sends ``{"error"}``, or ``{"tests", "modules"}`` (seconds by name, and imported modules of others). Then
    sends for each fault ``{"index", "by", "hung", "seconds"}``, or ``{"index", "cold"}`` if the module has
    to be imported again to have the fault.

    Args:
        path: The module.
        source: Its text.
        measurements: Of the tests.
        mutants: The faults.
        most: Seconds of tests that are run with each fault, counted without one; the longest are left out.
        send: Called with each result.
    """

    def __init__(
        self,
        path: str,
        source: str,
        measurements: Measurements,
        mutants: Sequence[Mutant],
        most: float,
        send: Send,
    ) -> None:
        self._path = path
        self._source = source
        self._measurements = measurements
        self._mutants = mutants
        self._most = most
        self._send = send

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run them."""
        if session.testsfailed or not session.items:
            self._send({"error": "its tests cannot be collected"})
            return True
        use_few_examples(session.items)
        measured = self._measurements.measure(session.items)
        if isinstance(measured, str):
            self._send({"error": f"without a fault, its tests {measured}"})
            return True
        seconds = {name: each.seconds for name, each in measured.items()}
        self._send({"tests": seconds, "modules": _foreign_modules()})
        functions = Functions(self._path, compile(ast.parse(self._source), self._path, "exec"))
        gc.freeze()  # or a collection in each child would copy all memory
        for index, mutant in enumerate(self._mutants):
            self._try(index, mutant, session.items, measured, functions)
        return True

    def _try(
        self,
        index: int,
        mutant: Mutant,
        items: Sequence[pytest.Item],
        measured: dict[str, Measured],
        functions: Functions,
    ) -> None:
        wanted = statement(self._source, mutant.line)
        chosen = [item for item in items if not wanted.isdisjoint(measured[item.nodeid].lines)]
        chosen.sort(key=lambda item: measured[item.nodeid].seconds)
        seconds = [measured[item.nodeid].seconds for item in chosen]
        fit = _number_within(seconds, self._most)
        chosen, seconds = chosen[:fit], seconds[:fit]
        code = compile(mutant.tree, self._path, "exec")

        if not chosen:
            cold = functions.runs_at_import(code)
            self._send({"index": index, **({"cold": True} if cold else _NOT_EXECUTED)})
            return

        def work() -> dict[str, object]:
            return {"by": run_until_failure(chosen, seconds)} if functions.swap(code) else {"cold": True}

        began = time.monotonic()
        told, hung = in_a_child(work, limit(sum(seconds)))
        told = told or {"by": "the process ended"}
        self._send({"index": index, "hung": hung, "seconds": time.monotonic() - began, **told})


def _number_within(seconds: Sequence[float], most: float) -> int:
    """Return how many tests from the first on take at most so long together, one at least."""
    return max(1, sum(so_far <= most for so_far in accumulate(seconds)))


def _foreign_modules() -> list[str]:
    """Return the names of the imported modules that are not this project's."""
    own = ("vscsihba", "handlers", "configfs", "tests", "__main__", "conftest")
    return [name for name in sys.modules if name.partition(".")[0] not in own]


def statement(source: str, line: int) -> frozenset[int]:
    """Return the lines of the innermost statement around a line; of a block, those of its head."""
    best = frozenset({line})
    shortest = len(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            if node.lineno <= line <= last and last - node.lineno < shortest:
                shortest = last - node.lineno
                best = frozenset(range(node.lineno, last + 1))
    return best


class Quickest:
    """Runs the quickest tests first, none much longer than it usually takes; remembers the first that fails.

    Args:
        seconds: What each test takes, by name.
        most: Seconds of tests that are run; the longest are left out.
    """

    def __init__(self, seconds: dict[str, float], most: float) -> None:
        self._seconds = seconds
        self._most = most
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort them."""
        use_few_examples(items)
        items.sort(key=lambda item: self._seconds.get(item.nodeid, _UNKNOWN))
        fit = _number_within([self._seconds.get(item.nodeid, _UNKNOWN) for item in items], self._most)
        del items[fit:]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Limit the time of a test."""
        end_after(limit(self._seconds.get(nodeid, _UNKNOWN)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


def options(temporary: str) -> list[str]:
    """Return pytest's options for both kinds of runs; nobody reads why a test has failed."""
    return [
        *("-q", "-x", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"),
        f"--basetemp={temporary}/tests",
    ]
