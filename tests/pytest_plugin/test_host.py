"""The choice of a free HBA, with ports that need no kernel."""

from types import SimpleNamespace

import pytest

from vscsihba import configfs
from vscsihba.errors import HostError, InUseError
from vscsihba.hba import LoopbackPort, VirtualHba
from vscsihba.pytest_plugin import host
from vscsihba.sandbox.surroundings import INSIDE


class Port(LoopbackPort):
    """A port that counts its openings; `taken` are ids that another process uses."""

    def __init__(self, hba_id: int, taken: set[int], log: list[str]) -> None:
        super().__init__()
        self._id, self._taken, self._log = hba_id, taken, log

    def open(self) -> None:
        if self._id in self._taken:
            raise InUseError(f"HBA {self._id} is already served")
        self._log.append(f"open {self._id}")
        super().open()

    def close(self) -> None:
        super().close()
        self._log.append(f"close {self._id}")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Ids that another process takes at this moment; the kernel has 255 already."""
    monkeypatch.setattr(configfs, "observe", lambda: SimpleNamespace(hbas={255: None}))
    return set()


@pytest.fixture
def log(taken: set[int], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The openings and closings of ports."""
    said: list[str] = []
    monkeypatch.setattr(host, "VirtualHba", lambda hba_id: VirtualHba(hba_id, port=Port(hba_id, taken, said)))
    return said


def test_the_highest_free_id_is_taken_once_and_given_back(taken: set[int], log: list[str]) -> None:
    taken |= {254, 253}
    with host.free_hba() as hba:
        assert log == ["open 252"]
        assert hba.luns == {}
    assert log == ["open 252", "close 252"]


def test_a_failing_test_gives_its_hba_back(log: list[str]) -> None:
    with pytest.raises(InUseError, match="of the test"), host.free_hba():
        raise InUseError("of the test")
    assert log == ["open 254", "close 254"]


def test_all_ids_are_in_use(taken: set[int], log: list[str]) -> None:
    taken |= set(host.IDS)
    with pytest.raises(HostError, match="all 256 HBA ids are in use"), host.free_hba():
        pass
    assert log == []


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (None, "only root can create virtual disks; run it with sudo, or run pytest --vscsi-sandbox"),
        ("1", "only root can create virtual disks; run it with sudo"),
    ],
)
def test_the_reason_names_the_sandbox_outside_of_it(
    monkeypatch: pytest.MonkeyPatch, inside: str | None, reason: str
) -> None:
    def refuse() -> None:
        raise HostError("only root can create virtual disks", cure="run it with sudo")

    monkeypatch.setattr(configfs, "prepare", refuse)
    monkeypatch.delenv(INSIDE, raising=False)
    if inside is not None:
        monkeypatch.setenv(INSIDE, inside)
    assert host.missing.__wrapped__() == reason
