import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from vscsihba.handlers.shared import tmpfs_store


@pytest.fixture(autouse=True)
def own_tmpfs_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep notes apart from those of real disks on this machine."""
    directory = tmp_path_factory.mktemp("notes")
    monkeypatch.setattr(tmpfs_store, "DIRECTORY", directory)
    return directory


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Turn off the collection of reference cycles, so that an object in one is kept."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
