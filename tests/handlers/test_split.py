import os
from pathlib import Path

import pytest

from vscsihba.errors import ConfigError, InUseError, MediumError, UsageError
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write


class SplitModel(DiskModel):
    resizes = False
    parts = (64 * KIB, 100 * KIB, 156 * KIB)

    def prepare(self, directory: Path) -> bytearray:
        for number, size in enumerate(self.parts):
            (directory / f"{number}.img").write_bytes(bytes(size))
        return bytearray(sum(self.parts))

    def document(self, directory: Path) -> Document:
        return {
            "handler": "split",
            "legs": [str(directory / f"{number}.img") for number in range(len(self.parts))],
        }


TestSplit = as_tests(SplitModel)


@pytest.fixture
def legs(tmp_path: Path) -> list[str]:
    for name in "abc":
        (tmp_path / f"{name}.img").write_bytes(name.encode() * 1024)
    return [str(tmp_path / f"{name}.img") for name in "abc"]


def test_reads_across_borders(legs: list[str]) -> None:
    with build({"handler": "split", "legs": legs}) as disk:
        assert disk.geometry.size == 3072
        assert read(disk, 1023, 1026) == b"a" + b"b" * 1024 + b"c"


def test_lost_bytes_are_named_as_seen_from_above(legs: list[str]) -> None:
    with build({"handler": "split", "legs": legs}) as disk:
        os.truncate(legs[1], 100)
        with pytest.raises(MediumError) as lost:
            read(disk, 0, 3072)
        assert lost.value.offset == 1124


def test_a_request_inside_one_leg_is_done_inline(legs: list[str]) -> None:
    with build({"handler": "split", "legs": legs}) as disk:
        inline = disk.inline
        assert inline.read is not None
        assert inline.write is not None
        room = memoryview(bytearray(1024))
        assert inline.read([room[:512], room[512:]], 1024, inline.read_flags) == 1024
        assert bytes(room) == b"b" * 1024
        assert inline.write([room[:512]], 2560, inline.write_flags) == 512
        assert read(disk, 2048, 1024) == b"c" * 512 + b"b" * 512
        for move in (inline.read, inline.write):
            with pytest.raises(BlockingIOError):
                move([room], 2000, 0)


def test_nothing_is_inline_if_a_leg_may_block(legs: list[str]) -> None:
    slow = {"handler": "delay", "seconds": 0, "next": legs[1]}
    with build({"handler": "split", "legs": [legs[0], slow]}) as disk:
        assert (disk.inline.read, disk.inline.write) == (None, None)


def test_can_do_what_every_leg_can(legs: list[str]) -> None:
    memory = {"handler": "memory", "size": "1MiB"}
    with build({"handler": "split", "legs": [legs[0], memory]}) as disk:
        assert disk.capabilities.flush
        assert disk.capabilities.extents
        write(disk, 1020, b"12345678", fua=True)
        disk.flush()
        assert read(disk, 1020, 8) == b"12345678"
    with build({"handler": "split", "legs": [{"handler": "readonly", "next": legs[0]}, memory]}) as disk:
        assert disk.capabilities.read_only


def test_opens_all_legs_or_none(legs: list[str]) -> None:
    with build(legs[2]), pytest.raises(InUseError):
        build({"handler": "split", "legs": legs}).open()
    with build(legs[0]):
        pass


def test_blocks_have_to_agree(legs: list[str]) -> None:
    odd = {"handler": "file", "path": legs[1], "block_size": 1024}
    with pytest.raises(UsageError, match=r"different block sizes: \[512, 1024\]"):
        build({"handler": "split", "legs": [legs[0], odd]}).open()


def test_every_leg_is_checked_before_anything_opens(legs: list[str]) -> None:
    with pytest.raises(UsageError, match="no such file"):
        build({"handler": "split", "legs": [*legs, "/nowhere/x.img"]}).check()


@pytest.mark.parametrize("wrong", [None, [], "a.img", {"handler": "null"}])
def test_legs_are_a_list(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"\$\.legs: expected a list"):
        build({"handler": "split", "legs": wrong})


def test_errors_name_the_leg() -> None:
    with pytest.raises(ConfigError, match=r"\$\.legs\[1\]\.size"):
        build({"handler": "split", "legs": ["a.img", {"handler": "null", "size": "x"}]})


def test_runs_no_more_at_once_than_any_leg(legs: list[str]) -> None:
    with build({"handler": "split", "legs": legs}) as disk:
        assert disk.workers == 8
    with build({"handler": "split", "legs": [*legs, {"handler": "memory", "size": 512}]}) as disk:
        assert disk.workers == 1
