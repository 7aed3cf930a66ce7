"""PRE-FETCH."""

import pytest

from tests.scsi.disk import BLOCK, Disk
from vscsihba.block import Read


@pytest.mark.parametrize(
    "cdb",
    ["34 00 00000002 00 0003 00", "34 02 00000002 03 0003 00", "90 00 0000000000000002 00000003 00 00"],
)
def test_pre_fetch_reads(cdb: str) -> None:
    disk = Disk()
    assert disk.run(cdb).good
    assert [(op.offset, len(op.views[0])) for op in disk.operations if isinstance(op, Read)] == [
        (2 * BLOCK, 3 * BLOCK)
    ]


def test_pre_fetch_of_0_blocks_goes_on_to_the_end() -> None:
    disk = Disk(blocks=64)
    assert disk.run("34 00 00000028 00 0000 00").good
    assert [len(op.views[0]) for op in disk.operations if isinstance(op, Read)] == [24 * BLOCK]


def test_pre_fetch_fetches_no_more_than_makes_sense() -> None:
    disk = Disk(blocks=65536)
    assert disk.run("34 00 00000000 00 0000 00").good
    assert sum(len(op.views[0]) for op in disk.operations if isinstance(op, Read)) == 16 << 20


def test_pre_fetch_reports_what_cannot_be_read() -> None:
    disk = Disk()
    disk.bad_offsets = {2 * BLOCK}
    assert disk.run("34 00 00000002 00 0003 00").information == 2


def test_pre_fetch_immed_defers_what_cannot_be_read() -> None:
    disk = Disk()
    disk.bad_offsets = {2 * BLOCK}
    assert disk.run("34 02 00000002 00 0003 00").good
    answer = disk.run("00" * 6)
    assert answer.sense[0] == 0x71 | 0x80
    assert answer.information == 2
