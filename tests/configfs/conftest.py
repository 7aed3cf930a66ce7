from pathlib import Path

import pytest

from tests.configfs.fake_configfs import FakeConfigfs


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    return FakeConfigfs(tmp_path, monkeypatch)
