from vscsihba.block import Extent, ExtentStatus
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write


def test_reads_zeroes_whatever_was_written() -> None:
    with build({"handler": "null", "size": "1PiB"}) as disk:
        write(disk, 1 << 49, b"data", fua=True)
        disk.write_zeroes(0, 1 << 50, may_unmap=False)
        disk.unmap(0, 1 << 50)
        disk.flush()
        assert read(disk, 1 << 49, 4) == bytes(4)


def test_is_one_hole() -> None:
    with build({"handler": "null", "size": "1MiB"}) as disk:
        assert disk.extents(512, 1024) == [ExtentStatus(Extent(512, 1024), allocated=False, zero=True)]


def test_resizes() -> None:
    with build({"handler": "null", "size": "1MiB"}) as disk:
        disk.resize(2 << 20)
        assert disk.geometry.size == 2 << 20


def test_two_disks_are_two_media_unless_labelled() -> None:
    document = {"handler": "null", "size": 512}
    with build(document) as one, build(document) as other:
        assert one.identity != other.identity
    with build({**document, "label": "bench"}) as labelled:
        assert labelled.identity == "null:bench"
