"""Tuning: it writes the kernel's files that differ, and restores the defaults."""

from pathlib import Path

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba import configfs
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.tuning import tune
from vscsihba.errors import HostError

NAME = configfs.backstore_name(0, 0)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    made = FakeConfigfs(tmp_path, monkeypatch)
    configfs.create_backstore(configfs.BackstoreSpec(NAME, 1 << 20, "serial"))
    configfs.create_hba(0)
    configfs.link_lun(0, 0, NAME)
    return made


def values(kernel: FakeConfigfs) -> tuple[str, ...]:
    device = kernel.sysfs / "bus/scsi/devices/6:0:1:0"
    values = [(device / name).read_text() for name in ("queue_depth", "timeout")]
    values.append(kernel.attribute(NAME, "qfull_time_out"))
    return tuple(text.split()[0] for text in values)


def test_what_is_wanted_is_set(kernel: FakeConfigfs) -> None:
    tune(0, 0, Tuning(queue_depth=8, command_timeout=90, queue_full_timeout=5))
    assert values(kernel) == ("8", "90", "5")


def test_what_is_not_wanted_is_not_touched(kernel: FakeConfigfs) -> None:
    (kernel.sysfs / "bus/scsi/devices/6:0:1:0/timeout").write_text("180\n")  # a udev rule's
    tune(0, 0, Tuning(queue_depth=8))
    assert values(kernel) == ("8", "180", "-1")


def test_what_is_no_longer_wanted_is_as_the_kernel_had_it(kernel: FakeConfigfs) -> None:
    before = Tuning(queue_depth=8, command_timeout=90, queue_full_timeout=5)
    tune(0, 0, before)
    tune(0, 0, Tuning(), before=before)
    assert values(kernel) == ("1024", "30", "-1")


def test_lun_that_is_not_there_is_told(kernel: FakeConfigfs) -> None:
    with pytest.raises(HostError, match="no LUN 1"):
        tune(0, 1, Tuning(queue_depth=8))
