from pathlib import Path

import pytest

from vscsihba.handlers.shared import tmpfs_store


@pytest.fixture(autouse=True)
def own_tmpfs_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep notes apart from those of real disks on this machine."""
    directory = tmp_path_factory.mktemp("notes")
    monkeypatch.setattr(tmpfs_store, "DIRECTORY", directory)
    return directory
