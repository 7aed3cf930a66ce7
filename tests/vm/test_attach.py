"""The main job: a file becomes a disk, and nothing is left of it afterwards."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.vm.target import target_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import MakeImage, Serve


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_file_is_a_disk_until_the_signal(
    serve: "Serve", image: "MakeImage", number: signal.Signals
) -> None:
    before = target_objects()
    path = image(size=8 << 20)
    target = serve([path])
    (lun,) = target.luns
    assert (lun.hba, lun.number, lun.size) == (0, 0, "8.0 MiB")
    assert lun.image.endswith("a.img")
    assert int((lun.sysfs / "size").read_text()) * 512 == 8 << 20
    assert lun.sg.is_char_device()

    lun.node.write_bytes(b"written to the disk")
    assert target.stop(number) == 0
    assert path.read_bytes()[:19] == b"written to the disk"
    assert not lun.node.exists()
    assert target_objects() == before


@pytest.fixture
def late_writeback() -> "Iterator[None]":
    """Let Linux keep dirty pages for an hour (with 0 it writes them at once, by wb_wakeup_delayed)."""
    interval = Path("/proc/sys/vm/dirty_writeback_centisecs")
    before = interval.read_text()
    interval.write_text("360000")
    yield
    interval.write_text(before)


@pytest.mark.usefixtures("late_writeback")
def test_what_linux_has_not_written_yet_is_written_before_the_disk_goes(
    serve: "Serve", image: "MakeImage"
) -> None:
    path = image(size=8 << 20)
    target = serve([path])
    (lun,) = target.luns
    held = os.open(lun.node, os.O_RDWR)  # open until the end: a close makes udev read the disk anew
    try:
        os.write(held, b"written, not flushed")
        assert path.read_bytes()[:20] == bytes(20), "Linux keeps it for now"
        assert target.stop() == 0
    finally:
        os.close(held)
    assert path.read_bytes()[:20] == b"written, not flushed"
