"""A simulated machine leaves this process as it was."""

import logging
import threading
from pathlib import Path

import pytest

from tests.sim.world import World

log = logging.getLogger(__name__)


def test_threads_of_a_machine_are_traced_as_others_are(root: Path) -> None:
    traced: list[str] = []

    def body() -> None:
        pass

    before = threading.gettrace()
    threading.settrace(lambda frame, _event, _argument: traced.append(frame.f_code.co_name))
    try:
        with World(root, 1) as world:
            world.live(body)
    finally:
        threading.settrace(before)
    assert "body" in traced


def test_a_machine_logs_nothing_and_silences_nothing_afterwards(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with World(root, 1) as world:
        world.live(lambda: log.warning("within"))
    log.warning("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]
