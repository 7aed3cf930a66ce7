"""Directories on a tmpfs: the page cache of the simulated machine."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.handlers.places import MEMORY_DIRECTORY


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty directory for the files of a machine."""
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY_DIRECTORY) as name:
        yield Path(name)
