from dataclasses import replace
from typing import Any

import pytest

from vscsihba.configfs import BackstoreSpec
from vscsihba.errors import UsageError

SPEC = BackstoreSpec("vscsihba0-lun0", 1 << 20, "serial")


@pytest.mark.parametrize(("block_size", "sectors"), [(512, 2048), (1024, 1024), (4096, 256)])
def test_commands_of_a_mebibyte_by_default(block_size: int, sectors: int) -> None:
    assert BackstoreSpec("vscsihba", 1 << 20, "s", block_size=block_size).hw_max_sectors == sectors


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 0, "size is 0"),
        ("size", 1000, "not a multiple"),
        ("block_size", 520, "block size 520"),
        ("serial", "", "unit serial"),
        ("serial", " x", "blank"),
        ("serial", "a/b", "slash"),
        ("serial", "ä", "unit serial"),
        ("serial", "x" * 254, "unit serial"),
        ("hw_max_sectors", 7, "whole number of pages"),
        ("hw_max_sectors", -8, "whole number of pages"),
        ("max_data_area_mb", 0, "max_data_area_mb 0"),
        ("data_pages_per_blk", 0, "data_pages_per_blk 0"),
        ("data_pages_per_blk", 1 << 20, "more than the data area"),
        ("cmd_ring_size_mb", 0, "cmd_ring_size_mb 0"),
        ("cmd_time_out", -1, "cmd_time_out"),
        ("qfull_time_out", -2, "qfull_time_out"),
        ("name", "disk", "not a backstore name"),
        ("config", "a:b", "not a backstore configuration"),
    ],
)
def test_spec_refuses(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SPEC, **{field: value})
