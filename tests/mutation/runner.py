"""Running the tests nearest to a module with one fault in it, each in a process of its own.

No file is changed: an import hook gives the test process the module with the fault. The process is
forked from one that has imported pytest already, and is killed when it takes much longer than
without a fault, which counts as noticed.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import pytest

from tests.mutation.modules import Target
from tests.mutation.mutants import Mutant

TOP: Final = Path(__file__).parents[2]
_PATIENCE: Final = 4.0
"""How many times as long as without a fault a test run may take."""
_LEAST: Final = 20.0
"""Seconds that any run may take."""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        line: Of the fault.
        code: What is there, without its indentation.
        what: The fault.
        noticed: A test failed, or did not end.
        seconds: How long that took.
    """

    line: int
    code: str
    what: str
    noticed: bool
    seconds: float


class UntestableError(Exception):
    """The tests of a module fail without a fault."""


class Trial:
    """The tests of one module, ready to be run with faults in it.

    Args:
        target: The module.

    Raises:
        UntestableError: The tests fail as they are.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.source = (TOP / target.path).read_text(encoding="utf-8")
        began = time.monotonic()
        if self._noticed(ast.parse(self.source), 600.0):
            raise UntestableError(f"{target.name}: its tests fail without a fault: {' '.join(target.tests)}")
        self.seconds = time.monotonic() - began

    def run(self, mutant: Mutant) -> Verdict:
        """Run the tests with one fault."""
        began = time.monotonic()
        noticed = self._noticed(mutant.tree, _LEAST + _PATIENCE * self.seconds)
        code = self.source.splitlines()[mutant.line - 1].strip()
        return Verdict(mutant.line, code, mutant.what, noticed, time.monotonic() - began)

    def _noticed(self, tree: ast.Module, limit: float) -> bool:
        child = os.fork()
        if child == 0:
            os.setsid()
            _be_tested(self.target, tree)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status != 0
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True


def _be_tested(target: Target, tree: ast.Module) -> None:
    """Be the child: run the tests with the module replaced, and exit with their result."""
    code = 1
    try:
        os.chdir(TOP)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        sys.meta_path.insert(0, _Finder(target.module, compile(tree, str(TOP / target.path), "exec")))
        importlib.import_module(target.module)  # before pytest, which would read it itself for its assertions
        options = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, *target.tests]))
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on
        code = 1
    finally:
        os._exit(code)


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
