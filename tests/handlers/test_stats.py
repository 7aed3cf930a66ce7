import json
import logging
from pathlib import Path

import pytest

from vscsihba.handlers.stack import Document, build
from vscsihba.handlers.stats import Count
from vscsihba.testing.disk_model import read, write

FAILING: Document = {
    "handler": "error",
    "offset": 4096,
    "next": {"handler": "memory", "size": "1MiB", "label": "m"},
}


def test_counts_by_verb_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "stats.json"
    with build({"handler": "stats", "file": str(file), "next": FAILING}) as disk:
        read(disk, 0, 512)
        read(disk, 0, 1024)
        with pytest.raises(OSError, match="on purpose"):
            read(disk, 4096, 512)
        write(disk, 0, b"abc")
        disk.flush()
        disk.resize(2 << 20)
    counted = json.loads(file.read_text())
    assert set(counted) == {"read", "write", "flush", "resize"}
    assert counted["read"]["calls"] == 3
    assert counted["read"]["bytes"] == 2048
    assert counted["read"]["errors"] == 1
    assert counted["read"]["seconds"] >= counted["read"]["longest"] > 0
    assert counted["write"]["bytes"] == 3
    assert counted["resize"]["bytes"] == 0


def test_counts_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vscsihba.handlers.stats")
    with build({"handler": "stats", "next": FAILING}) as disk:
        write(disk, 0, bytes(2048))
    (record,) = caplog.records
    assert record.getMessage().startswith("memory:m: write: 1 calls, 2.0 KiB, 0 errors, ")


def test_a_count_of_nothing_can_be_shown() -> None:
    assert str(Count()).startswith("0 calls")


def test_counts_what_is_done_inline(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(8192))
    file = tmp_path / "stats.json"
    with build({"handler": "stats", "file": str(file), "next": str(tmp_path / "a.img")}) as disk:
        inline = disk.inline
        assert inline.read is not None
        assert inline.write is not None
        room = memoryview(bytearray(4096))
        assert inline.read([room], 0, inline.read_flags) == 4096
        assert inline.write([room[:512]], 0, inline.write_flags) == 512
        assert inline.read([room], 6144, inline.read_flags) < 4096  # it comes again, and is counted then
    counted = json.loads(file.read_text())
    assert (counted["read"]["calls"], counted["read"]["bytes"]) == (1, 4096)
    assert (counted["write"]["calls"], counted["write"]["bytes"]) == (1, 512)


def test_has_no_inline_verbs_where_there_are_none() -> None:
    with build({"handler": "stats", "next": {"handler": "delay", "seconds": 0, "next": FAILING}}) as disk:
        assert (disk.inline.read, disk.inline.write) == (None, None)
