import time
from pathlib import Path

import pytest

from vscsihba.errors import ConfigError
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read, write

MEMORY: Document = {"handler": "memory", "size": "1MiB"}


def test_waits_before_each_chosen_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    with build({"handler": "delay", "seconds": 0.25, "verbs": ["read", "flush"], "next": MEMORY}) as disk:
        read(disk, 0, 4)
        write(disk, 0, b"abcd")
        disk.flush()
    assert naps == [0.25, 0.25]


def test_waits_only_while_its_trigger_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    trigger = tmp_path / "slow"
    with build({"handler": "delay", "seconds": 3, "trigger": str(trigger), "next": MEMORY}) as disk:
        read(disk, 0, 4)
        assert naps == []
        trigger.touch()
        read(disk, 0, 4)
        assert naps == [3]
        trigger.unlink()
        read(disk, 0, 4)
    assert naps == [3]


@pytest.mark.parametrize("options", [{"seconds": -1}, {}, {"seconds": 1, "verbs": ["raed"]}])
def test_options_that_cannot_be_meant(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build({"handler": "delay", **options, "next": MEMORY})
