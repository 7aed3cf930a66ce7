"""A simulated machine leaves this process as it was."""

import logging
from pathlib import Path

import pytest

from tests.sim.world import World

log = logging.getLogger(__name__)


def test_a_machine_logs_nothing_and_silences_nothing_afterwards(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with World(root, 1) as world:
        world.live(lambda: log.warning("within"))
    log.warning("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]
