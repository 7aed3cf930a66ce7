from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService, serving
from vscsihba.daemon import calls


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """A service without a kernel, which every command of this process asks."""
    with serving(tmp_path) as (fake, path):
        monkeypatch.setattr(calls, "SOCKET", path)
        yield fake


@pytest.fixture
def no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service is running."""
    monkeypatch.setattr(calls, "SOCKET", tmp_path / "control.sock")
