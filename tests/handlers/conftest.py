from pathlib import Path

import pytest

from vscsihba.handlers.shared import tmpfs_store as surviving


@pytest.fixture(autouse=True)
def own_surviving_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Keep what survives a process apart from that of real disks on this machine."""
    directory = tmp_path_factory.mktemp("surviving")
    monkeypatch.setattr(surviving, "DIRECTORY", directory)
    return directory
