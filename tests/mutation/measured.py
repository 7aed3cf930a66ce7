"""The time that tests take, and the lines of modules that they execute. Knows nothing of faults.

Measurements are kept in a folder for as long as neither the test nor the module changes. They are made for
several modules at once, since these share tests.
"""

import inspect
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import coverage
import pytest

from tests.mutation.children import in_a_child

_LIMIT: Final = 1800.0


@dataclass(frozen=True)
class Measured:
    """One test.

    Attributes:
        seconds: The processor time that it takes, with that of its processes.
        lines: The lines of the module that it executes.
    """

    seconds: float
    lines: frozenset[int]


class Measurements:
    """The measurements of one module, with files for those of others.

    Args:
        folder: Where they are kept.
        path: The module.
        others: Modules that are measured, too.
    """

    def __init__(self, folder: Path, path: str, others: Sequence[str]) -> None:
        self._folder = folder
        self._path = path
        self._sources = {each: Path(each).read_text(encoding="utf-8") for each in (path, *others)}

    def measure(self, items: Sequence[pytest.Item]) -> dict[str, Measured] | str:
        """Return the measurements of tests by name, or why there are none."""
        known = self._known(items)
        unknown = [item for item in items if item.nodeid not in known]
        if unknown:
            found, hung = in_a_child(lambda: self._run(unknown), _LIMIT)
            if hung or not isinstance(found, dict):
                return "do not end" if hung else f"fail: {found or 'the process ended'}"
            self._keep(unknown, found)
            known = self._known(items)
        return known

    def _known(self, items: Sequence[pytest.Item]) -> dict[str, Measured]:
        kept = self._kept(self._path)
        found = {}
        for item in items:
            version, seconds, lines = kept.get(item.nodeid, ("", 0.0, ()))
            if version == self._version(item, self._path):
                found[item.nodeid] = Measured(seconds, frozenset(lines))
        return found

    def _run(self, items: Sequence[pytest.Item]) -> dict[str, tuple[float, dict[str, list[int]]]] | str:
        """Return seconds and executed lines of tests by name, or the name of the first that fails."""
        took: dict[str, float] = {}
        covered = coverage.Coverage(data_file=None, config_file=False, include=list(self._sources))
        covered.start()
        for item, following in zip(items, [*items[1:], None], strict=True):
            covered.switch_context(item.nodeid)
            began = _processor_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            took[item.nodeid] = _processor_time() - began
            if item.session.testsfailed:
                return item.nodeid
        covered.stop()
        lines: dict[str, dict[str, list[int]]] = {name: {path: [] for path in self._sources} for name in took}
        for path in self._sources:
            for line, names in covered.get_data().contexts_by_lineno(path).items():
                for name in names:
                    lines[name][path].append(line)
        return {name: (took[name], lines[name]) for name in took}

    def _keep(
        self, items: Sequence[pytest.Item], found: dict[str, tuple[float, dict[str, list[int]]]]
    ) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._sources:
            kept = self._kept(path)
            for item in items:
                seconds, lines = found[item.nodeid]
                kept[item.nodeid] = (self._version(item, path), seconds, lines[path])
            self._file(path).write_text(json.dumps(kept), encoding="utf-8")

    def _kept(self, path: str) -> dict[str, tuple[str, float, Sequence[int]]]:
        file = self._file(path)
        kept: dict[str, tuple[str, float, Sequence[int]]] = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        )
        return kept

    def _file(self, path: str) -> Path:
        return self._folder / f"{'-'.join(Path(path).with_suffix('').parts[-3:])}.json"

    def _version(self, item: pytest.Item, path: str) -> str:
        """Return a text that changes with a test or a module."""
        test = inspect.getsource(inspect.unwrap(getattr(item, "obj", None) or Measurements))
        return f"{zlib.crc32(test.encode()):x} {zlib.crc32(self._sources[path].encode()):x}"


def _processor_time() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
