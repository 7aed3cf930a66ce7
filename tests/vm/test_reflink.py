"""Copies that share storage, on an XFS that lives on a disk of ours."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import MakeImage, Serve
from tests.vm.shell import checksum, mounted, run
from vscsihba.handlers.file import reflink

MiB = 1 << 20


@pytest.fixture
def xfs(serve: Serve, image: MakeImage, scratch: Path) -> Iterator[Path]:
    """A mounted XFS that can share storage."""
    target = serve([image("xfs.img", 512 * MiB)])
    run("mkfs.xfs", "-q", "-m", "reflink=1", target.luns[0].node)
    with mounted(target.luns[0].node, scratch / "xfs") as where:
        yield where
    assert target.stop() == 0


@pytest.fixture
def golden(xfs: Path) -> Path:
    """A file of 64 MiB on it."""
    path = xfs / "golden.img"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(MiB))
        os.fsync(file.fileno())
    return path


def used(where: Path) -> int:
    """Return the bytes that are taken on a file system."""
    run("sync", "-f", where)
    stat = os.statvfs(where)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def test_a_copy_takes_no_room(xfs: Path, golden: Path) -> None:
    before = used(xfs)
    with golden.open("rb") as source:
        assert reflink.copy_file(source.fileno(), xfs / "copy.img")
    assert used(xfs) < before + 4 * MiB
    assert checksum(xfs / "copy.img") == checksum(golden)


def test_a_range_is_shared_where_it_is_whole_blocks(xfs: Path, golden: Path) -> None:
    target = xfs / "target"
    target.write_bytes(bytes(8 * MiB))
    before = used(xfs)
    with golden.open("rb") as source, target.open("r+b") as file:
        assert reflink.clone_range(source.fileno(), 4 * MiB, 8 * MiB, file.fileno(), 0)
        assert not reflink.clone_range(source.fileno(), 1, 512, file.fileno(), 0), "not whole blocks"
        reflink.copy_range(source.fileno(), 1, 512, file.fileno(), 0)
    assert used(xfs) < before + MiB
    original = golden.read_bytes()
    assert target.read_bytes() == original[1:513] + original[4 * MiB + 512 : 12 * MiB]


def test_a_disk_is_made_of_a_template_at_once(xfs: Path, golden: Path, serve: Serve) -> None:
    before, template = used(xfs), checksum(golden)
    target = serve([f"file:{xfs}/vm1.img;copy_of={golden}"], hba=1)
    assert checksum(target.luns[0].node) == template
    assert used(xfs) < before + 4 * MiB
    run("dd", "if=/dev/zero", f"of={target.luns[0].node}", "bs=1M", "count=3", "oflag=direct")
    assert target.stop() == 0
    assert checksum(golden) == template
    assert (xfs / "vm1.img").read_bytes() == bytes(3 * MiB) + golden.read_bytes()[3 * MiB :]
