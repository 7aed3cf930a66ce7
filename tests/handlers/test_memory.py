import errno
from pathlib import Path

import pytest

from vscsihba.block import Space
from vscsihba.errors import InUseError
from vscsihba.handlers.memory import PAGE
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write


class MemoryModel(DiskModel):
    forgets = True

    def document(self, directory: Path) -> Document:
        return {"handler": "memory", "size": self.size, "label": "model"}


TestMemory = as_tests(MemoryModel)


def test_limit_is_answered_like_a_full_disk_and_the_disk_goes_on() -> None:
    with build({"handler": "memory", "size": "1MiB", "limit": 2 * PAGE}) as disk:
        write(disk, 0, b"a" * 2 * PAGE)
        with pytest.raises(OSError, match="full") as refused:
            write(disk, 2 * PAGE, b"b")
        assert refused.value.errno == errno.ENOSPC
        disk.unmap(0, PAGE)
        write(disk, 2 * PAGE, b"b")
        assert read(disk, PAGE, PAGE + 1) == b"a" * PAGE + b"b"


def test_write_without_room_for_all_of_it_stores_nothing() -> None:
    with build({"handler": "memory", "size": "1MiB", "limit": 2 * PAGE}) as disk:
        write(disk, 0, b"a" * PAGE)
        with pytest.raises(OSError, match="full"):
            write(disk, PAGE - 1, b"b" * (2 * PAGE))
        assert read(disk, 0, 4 * PAGE) == b"a" * PAGE + bytes(3 * PAGE)
        assert disk.capabilities.atomic_write > 4 * PAGE


def test_zeroing_what_was_never_written_takes_no_memory() -> None:
    with build({"handler": "memory", "size": "1MiB", "limit": 0}) as disk:
        disk.write_zeroes(0, 1 << 20, may_unmap=False)
        disk.unmap(1, 600 * KIB)


def test_huge_ranges_are_quick() -> None:
    with build({"handler": "memory", "size": "1EiB"}) as disk:
        write(disk, 1 << 59, b"x")
        (head,) = disk.extents(0, 1 << 60)
        assert not head.allocated
        disk.unmap(0, 1 << 60)
        assert read(disk, 1 << 59, 1) == b"\0"


def test_two_disks_are_two_media_unless_labelled() -> None:
    document = {"handler": "memory", "size": 512}
    with build(document) as one, build(document) as other:
        assert one.identity != other.identity
    with build({**document, "label": "scratch"}) as labelled:
        assert labelled.identity == "memory:scratch"


def test_room_is_what_the_limit_leaves() -> None:
    with build({"handler": "memory", "size": "1MiB", "limit": 4 * PAGE}) as disk:
        write(disk, 0, b"a" * PAGE + b"b")
        assert disk.space() == Space(available=2 * PAGE, used=2 * PAGE)
        disk.unmap(0, PAGE)
        assert disk.space() == Space(available=3 * PAGE, used=PAGE)
    with build({"handler": "memory", "size": "1MiB"}) as disk:
        assert disk.space() is None


def test_a_label_is_one_disks_at_a_time() -> None:
    """Two would have one serial number and one NAA designator."""
    document = {"handler": "memory", "size": 1 << 20, "label": "scratch"}
    with build(document), pytest.raises(InUseError, match="another memory disk has the label 'scratch'"):
        build(document).open()
    with build(document):
        pass
