import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from vscsihba.errors import ConfigError
from vscsihba.handlers.stack import Stack, build
from vscsihba.testing.disk_model import read, write


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Give a clock that moves only while somebody sleeps."""
    clock = SimpleNamespace(now=1000.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", sleep)
    return clock


def limited(**options: object) -> Stack:
    return build({"handler": "rate", **options, "next": {"handler": "memory", "size": "1MiB"}})


def test_bytes_per_second(clock: SimpleNamespace) -> None:
    with limited(bytes_per_second="100KiB", burst=0) as disk:
        for _ in range(10):
            read(disk, 0, 51200)
    assert clock.now == pytest.approx(1005.0)


def test_requests_per_second(clock: SimpleNamespace) -> None:
    with limited(requests_per_second=50, burst=0) as disk:
        for _ in range(100):
            write(disk, 0, b"x")
    assert clock.now == pytest.approx(1002.0)


def test_the_tighter_limit_holds(clock: SimpleNamespace) -> None:
    with limited(bytes_per_second=1000, requests_per_second=1, burst=0) as disk:
        read(disk, 0, 10)
        assert clock.now == pytest.approx(1001.0)
        read(disk, 0, 3000)
        assert clock.now == pytest.approx(1004.0)


def test_a_pause_is_saved_up_for_a_burst(clock: SimpleNamespace) -> None:
    with limited(bytes_per_second=1000, burst=2) as disk:
        read(disk, 0, 2000)
        assert clock.now == 1000.0
        clock.now += 100
        read(disk, 0, 2000)
        assert clock.now == 1100.0
        read(disk, 0, 500)
        assert clock.now == pytest.approx(1100.5)


def test_other_verbs_go_by(clock: SimpleNamespace) -> None:
    with limited(requests_per_second=0.001, burst=0) as disk:
        disk.flush()
        disk.unmap(0, 512)
    assert clock.now == 1000.0


@pytest.mark.parametrize("options", [{}, {"bytes_per_second": 0}, {"requests_per_second": 0}])
def test_limits_that_cannot_be_meant(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        limited(**options)
