import errno
from pathlib import Path

import pytest

from vscsihba.errors import ConfigError, MediumError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.stack import Stack, build
from vscsihba.testing.disk_model import read, write


def failing(**options: object) -> Stack:
    return build({"handler": "error", **options, "next": {"handler": "memory", "size": "1MiB"}})


def outcomes(disk: Checked, count: int) -> str:
    """Read `count` times; return a letter for each."""
    letters = ""
    for _ in range(count):
        try:
            read(disk, 0, 512)
            letters += "."
        except OSError:
            letters += "E"
    return letters


def test_fails_with_the_chosen_errno() -> None:
    with failing(error="ENOSPC", verbs=["write"]) as disk:
        read(disk, 0, 512)
        with pytest.raises(OSError, match="on purpose") as failed:
            write(disk, 0, b"x")
        assert failed.value.errno == errno.ENOSPC


def test_fails_in_its_range_only() -> None:
    with failing(offset=4096, length=512) as disk:
        read(disk, 0, 4096)
        read(disk, 4608, 4096)
        for offset, length in ((4095, 2), (4607, 1), (0, 1 << 20)):
            with pytest.raises(OSError, match="on purpose"):
                read(disk, offset, length)


def test_lost_bytes_are_named() -> None:
    with failing(error="medium", offset=4096) as disk:
        with pytest.raises(MediumError) as lost:
            read(disk, 0, 8192)
        assert lost.value.offset == 4096


def test_verbs_without_a_range_fail_too() -> None:
    with failing(verbs=["flush", "resize"], offset=4096, length=512) as disk:
        with pytest.raises(OSError, match="flush: Input/output error on purpose"):
            disk.flush()
        with pytest.raises(OSError, match="on purpose"):
            disk.resize(2 << 20)


def test_after_and_count() -> None:
    with failing(after=2, count=3) as disk:
        assert outcomes(disk, 8) == "..EEE..."


def test_luck_can_be_had_again() -> None:
    def luck(seed: int) -> str:
        with failing(probability=0.5, seed=seed) as disk:
            return outcomes(disk, 40)

    assert luck(1) == luck(1) != luck(2)
    assert 5 < luck(1).count("E") < 35


def test_trigger(tmp_path: Path) -> None:
    trigger = tmp_path / "fail"
    with failing(trigger=str(trigger)) as disk:
        assert outcomes(disk, 2) == ".."
        trigger.touch()
        assert outcomes(disk, 2) == "EE"
        trigger.unlink()
        assert outcomes(disk, 2) == ".."


def test_an_errno_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="neither an errno"):
        failing(error="EOOPS")
