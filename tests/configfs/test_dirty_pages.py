"""Dirty pages of a disk are written before its LUN is unlinked."""

import ctypes
import errno
import logging
from pathlib import Path

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import (
    BackstoreSpec,
    backstore_name,
    create_backstore,
    create_hba,
    dirty_pages,
    link_lun,
    unlink_lun,
)


@pytest.fixture
def disk(kernel: FakeConfigfs) -> Path:
    """LUN 3 with the nodes sdd and sdd1, which are files here."""
    spec = BackstoreSpec(backstore_name(0, 3), 1 << 20, "serial")
    create_backstore(spec)
    create_hba(0)
    link_lun(0, 3, spec.name)
    for name in ("sdd", "sdd1"):
        (kernel.dev / name).write_bytes(b"")
    partition = kernel.sysfs / "class/block/sdd/sdd1/partition"
    partition.parent.mkdir(parents=True)
    partition.write_text("1\n")
    return kernel.dev / "sdd"


class Syncs:
    """Stands for sync_file_range(2): notes the nodes, and whether the LUN was still linked.

    Attributes:
        seen: Names of the nodes.
        failing: Name of the node whose pages cannot be written.
    """

    def __init__(self, kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, bool]] = []
        self.failing = ""
        self._kernel = kernel
        monkeypatch.setattr(dirty_pages, "sync_file_range", self._sync)

    def _sync(self, fd: int) -> int:
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        self.seen.append((name, any(self._kernel.loopback.glob("*/tpgt_1/lun/lun_3"))))
        if name == self.failing:
            ctypes.set_errno(errno.EIO)
            return -1
        return 0


@pytest.fixture
def syncs(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(kernel, monkeypatch)


def test_partitions_and_disk_are_written_while_the_lun_is_there(disk: Path, syncs: Syncs) -> None:
    unlink_lun(0, 3)
    assert syncs.seen == [("sdd1", True), ("sdd", True)]


def test_a_disk_that_refuses_is_removed_with_a_warning(
    disk: Path, syncs: Syncs, kernel: FakeConfigfs, caplog: pytest.LogCaptureFixture
) -> None:
    syncs.failing = "sdd1"
    with caplog.at_level(logging.WARNING):
        unlink_lun(0, 3)
    assert [name for name, _linked in syncs.seen] == ["sdd1", "sdd"], "the rest is written all the same"
    assert not any(kernel.loopback.glob("*/tpgt_1/lun/lun_3"))
    assert "LUN 3 of HBA 0 is removed, but" in caplog.text
    assert f"{disk}: Linux could not write all data to it: Input/output error" in caplog.text


def test_a_node_that_is_gone_has_nothing_to_write(
    disk: Path, syncs: Syncs, caplog: pytest.LogCaptureFixture
) -> None:
    disk.unlink()
    unlink_lun(0, 3)
    assert [name for name, _linked in syncs.seen] == ["sdd1"]
    assert not caplog.records


def test_nothing_is_written_to_a_disk_that_is_not_served(disk: Path, syncs: Syncs) -> None:
    unlink_lun(0, 3, served=False)
    assert syncs.seen == []
