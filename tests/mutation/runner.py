"""Trying the faults of one module with the tests nearest to it. No file is changed.

Functions get their faulty code in a process that has collected the tests (`session`). Faults in code that
runs at import need a process of their own, in which an import hook returns the module with the fault. A
run that takes much longer than without a fault is ended, and the fault counts as noticed.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import pytest

from tests.mutation.children import in_a_child
from tests.mutation.measured import Measurements
from tests.mutation.modules import TARGETS, Target
from tests.mutation.mutants import Mutant
from tests.mutation.session import NOT_EXECUTED, Quickest, Session, options

_COLD_LIMIT: Final = 900.0
_BROKEN: Final = "run failed: "
TOP: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        line: Of the fault.
        code: What is there, without its indentation.
        what: The fault.
        number: How many mutants with the same code and fault come before it.
        noticed: A test failed, or did not end.
        by: The test that failed, "time" if the tests did not end, a remark if no test executes the line.
        seconds: How long that took.
    """

    line: int
    code: str
    what: str
    number: int
    noticed: bool
    by: str
    seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        """Names the mutant while its line stays as it is."""
        return self.code, self.what, self.number


class UntestableError(Exception):
    """The tests of a module fail without a fault."""


def tried(target: Target, mutants: Sequence[Mutant], *, most: float = math.inf) -> Iterator[Verdict]:
    """Try faults of a module, and yield the verdict on each.

    Args:
        target: The module.
        mutants: The faults.
        most: Seconds of tests that are run with each fault, counted without one; the longest are left out.

    Raises:
        UntestableError: The tests fail as they are.
    """
    with tempfile.TemporaryDirectory(prefix="mutants") as temporary:
        told = _collected_and_tried(target, mutants, most, temporary)
        first: dict[str, Any] = next(told, {"error": "its tests cannot be run"})
        if "error" in first:
            raise UntestableError(first["error"])
        seconds: dict[str, float] = first["tests"]
        cold = []
        for each in told:
            mutant = mutants[each["index"]]
            if "cold" in each:
                cold.append(mutant)
            else:
                yield _verdict(mutant, each["by"], each["hung"], each["seconds"])
        if cold:
            _import_beforehand(first["modules"])
        for mutant in cold:
            yield _import_and_try(target, mutant, Quickest(seconds, most), temporary)


def _collected_and_tried(
    target: Target, mutants: Sequence[Mutant], most: float, temporary: str
) -> Iterator[dict[str, Any]]:
    """Yield each result of a session in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _collect_and_try(target, mutants, most, temporary, writing)
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as results:
            for line in results:
                yield json.loads(line)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _import_beforehand(modules: Sequence[str]) -> None:
    """Import the tests' modules that are not this project's, for all processes that are forked later."""
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)


def _verdict(mutant: Mutant, by: str, hung: bool, seconds: float) -> Verdict:
    by = "time" if hung else by
    noticed = by not in ("", NOT_EXECUTED)
    return Verdict(mutant.line, mutant.code, mutant.what, mutant.number, noticed, by, round(seconds, 2))


def _collect_and_try(
    target: Target, mutants: Sequence[Mutant], most: float, temporary: str, results: int
) -> None:
    """Be the child that collects."""

    def send(told: dict[str, Any]) -> None:
        os.write(results, json.dumps(told).encode() + b"\n")

    source = (TOP / target.path).read_text(encoding="utf-8")
    _quiet()
    path = os.path.realpath(TOP / target.path)
    related = [each for each in TARGETS if each.path != target.path and each.tests[0] == target.tests[0]]
    others = [os.path.realpath(TOP / each.path) for each in related]
    measurements = Measurements(TOP / "build" / "mutation" / "tests", path, others)
    session = Session(path, source, measurements, mutants, most, send)
    pytest.main([*options(temporary), *target.tests], plugins=[session])


def _import_and_try(target: Target, mutant: Mutant, quickest: Quickest, temporary: str) -> Verdict:
    """Run all tests in a process that imports the module with the fault."""
    code = compile(mutant.tree, str(TOP / target.path), "exec")
    began = time.monotonic()
    by, hung = in_a_child(lambda: _run_with(target, code, quickest, temporary), _COLD_LIMIT)
    by = "the process ended" if by is None and not hung else by
    if str(by).startswith(_BROKEN):
        raise UntestableError(f"{target.path}:{mutant.line}: {by}")
    return _verdict(mutant, by or "", hung, time.monotonic() - began)


def _run_with(target: Target, code: CodeType, quickest: Quickest, temporary: str) -> str:
    _quiet()
    finder = _Finder(target.module, code)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(target.module)  # before pytest, which would read it itself for its assertions
    except Exception as error:  # noqa: BLE001 - whatever the fault raises
        return f"import: {type(error).__name__}"
    status = pytest.main([*options(temporary), *target.tests], plugins=[quickest])
    if getattr(sys.modules[target.module].__spec__, "loader", None) is not finder:
        return f"{_BROKEN}the tests have imported the module without the fault"
    if status not in (0, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        return f"{_BROKEN}pytest ended with {status}"
    return (quickest.failed or "the tests cannot be collected") if status else ""


def _quiet() -> None:
    """Give a child no terminal."""
    os.chdir(TOP)
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, and gives it other code."""

    def __init__(self, module: str, code: CodeType) -> None:
        self._module = module
        self._code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, origin=self._code.co_filename)
        if spec is not None:
            spec.has_location = True
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def spread(mutants: Sequence[Mutant], most: int) -> Iterator[Mutant]:
    """Yield at most so many mutants, spread evenly over the module."""
    if most <= 0 or most >= len(mutants):
        yield from mutants
        return
    for number in range(most):
        yield mutants[number * len(mutants) // most]
