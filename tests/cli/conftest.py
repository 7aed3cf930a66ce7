from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService, serving
from vscsihba.config.load import read
from vscsihba.daemon import calls

TWO_DISKS = {
    "version": 1,
    "backstores": {"d1": {"handler": "memory", "size": "1MiB"}, "d2": {"handler": "memory", "size": "1MiB"}},
    "hbas": [{"id": 0, "luns": [{"lun": 0, "backstore": "d1"}, {"lun": 1, "backstore": "d2"}]}],
}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """A service without a kernel, which every command of this process asks."""
    with serving(tmp_path) as (fake, path):
        monkeypatch.setattr(calls, "SOCKET", path)
        yield fake


@pytest.fixture
def running(service: FakeService) -> FakeService:
    """The same, with two disks of 1 MiB: LUNs 0 and 1 of HBA 0, with the backstores d1 and d2."""
    service.running = read(TWO_DISKS, Path("/"))
    return service


@pytest.fixture
def no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service is running."""
    monkeypatch.setattr(calls, "SOCKET", tmp_path / "control.sock")
