"""An engine as a process: its report to the starter, signals, and its end."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

from vscsihba.engine import process


class Target:
    """A target that serves nothing, and notes whether the process has waited."""

    luns: tuple[int, ...] = ()
    waited = 0

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return {"luns": list(self.luns)}


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> type[Target]:
    class Watched(Target):
        pass

    def wait(_target: object) -> None:
        Watched.waited += 1

    monkeypatch.setattr(process, "Target", Watched)
    monkeypatch.setattr(process, "_wait", wait)
    return Watched


@contextmanager
def starter(*, dies: bool) -> Iterator[int]:
    """A pipe instead of standard output, which the starter reads."""
    before, (reader, writer) = os.dup(1), os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    if dies:
        os.close(reader)
    try:
        yield reader
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_it_tells_its_starter_and_serves(target: type[Target]) -> None:
    with starter(dies=False) as reader:
        assert process._serve(3) == 0
        with os.fdopen(reader) as said:
            assert json.load(said) == {"ready": True}
    assert target.waited == 1


def test_one_whose_starter_died_meanwhile_ends(target: type[Target]) -> None:
    with starter(dies=True):
        assert process._serve(3) == 0
    assert target.waited == 0


def test_one_that_another_service_has_found_goes_on(target: type[Target]) -> None:
    target.luns = (0,)
    with starter(dies=True):
        assert process._serve(3) == 0
    assert target.waited == 1
