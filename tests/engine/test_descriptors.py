"""The limit of open files: an engine raises it to the hard limit, since a LUN takes several."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.engine import test_target
from vscsihba.cli import disk_args, vscsitarget
from vscsihba.engine import privileges, process
from vscsihba.engine.descriptors import PER_LUN, raise_limit
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.target import Target
from vscsihba.errors import HostError, UsageError

kernel, rings, run = test_target.kernel, test_target.rings, test_target.run

MiB = 1 << 20
LUNS = 12


@pytest.fixture
def shell() -> Iterator[int]:
    """The limits of a shell: 1,024 files, and a hard limit above it, which is returned."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def soft() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_the_hard_limit_becomes_the_soft_one(shell: int) -> None:
    assert raise_limit() == soft() == shell
    assert raise_limit() == shell


def test_a_limit_that_cannot_be_raised_stays(
    shell: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_words: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as refusing:
        refusing.setattr(resource, "setrlimit", refuse)
        assert raise_limit() == 1024
    assert "the limit of open files stays 1024: not allowed" in caplog.text


def test_an_engine_raises_it(shell: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise HostError("no")

    monkeypatch.setattr(privileges, "drop", refuse)
    monkeypatch.setattr(process, "_report", lambda _error: True)
    assert process.main(["3"]) == 1
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    assert soft() == shell


def test_vscsitarget_raises_it(shell: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> None:
        raise UsageError("no")

    monkeypatch.setattr(disk_args, "read_disks", refuse)
    assert vscsitarget.main(["id=3", "-files", "a.img"]) == 2
    assert soft() == shell


def test_an_engine_serves_more_luns_than_the_limit_it_began_with_allows(
    kernel: FakeConfigfs, run: Path, tmp_path: Path
) -> None:
    present = len(open_files())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (present + 2 * LUNS, before[1]))
    try:
        raise_limit()
        with Target(3, [], listeners=Listeners(), by="vscsihba", end=lambda: None) as target:
            for number in range(LUNS):
                image = tmp_path / f"{number}.img"
                image.write_bytes(bytes(MiB))
                target.add(LunSpec(number, {"handler": "file", "path": str(image)}))
            assert 2 * LUNS < len(open_files()) - present <= PER_LUN * LUNS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())
