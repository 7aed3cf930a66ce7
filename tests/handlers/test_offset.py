import os
import struct
from pathlib import Path

import pytest

from vscsihba.errors import ConfigError, MediumError, UsageError
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

START = 128 * KIB


class OffsetModel(DiskModel):
    resizes = False

    def prepare(self, directory: Path) -> bytearray:
        (directory / "a.img").write_bytes(b"\xee" * (START + self.size + 4096))
        return bytearray(b"\xee" * self.size)

    def document(self, directory: Path) -> Document:
        return {
            "handler": "offset",
            "offset": START,
            "length": self.size,
            "next": str(directory / "a.img"),
        }

    def teardown(self) -> None:
        outside = (self.directory / "a.img").read_bytes()
        assert outside[:START] == b"\xee" * START
        assert outside[START + self.size :] == b"\xee" * 4096
        super().teardown()


TestOffset = as_tests(OffsetModel)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(512) + b"abcd" * 256)
    return path


def test_takes_all_the_rest(image: Path) -> None:
    with build({"handler": "offset", "offset": 512, "next": str(image)}) as disk:
        assert disk.geometry.size == 1024
        assert read(disk, 0, 4) == b"abcd"


def test_two_windows_are_two_media(image: Path) -> None:
    identities = set()
    for start in (0, 512):
        with build({"handler": "offset", "offset": start, "length": 512, "next": str(image)}) as disk:
            identities.add(disk.identity)
    assert len(identities) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": 2048}, "does not fit"),
        ({"offset": 1536}, "does not fit"),
        ({"offset": 512, "length": 1025}, "does not fit"),
        ({"length": 0}, "does not fit"),
        ({"offset": 3, "length": 512}, "not a multiple of the block size"),
        ({"offset": 512, "length": 513}, "not a multiple of the block size"),
    ],
)
def test_windows_that_cannot_be(image: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build({"handler": "offset", **options, "next": str(image)}).open()


def test_lost_bytes_are_named_by_their_place_in_the_window(image: Path) -> None:
    with build({"handler": "offset", "offset": 512, "next": str(image)}) as disk:
        os.truncate(image, 1000)
        with pytest.raises(MediumError) as lost:
            read(disk, 0, 1024)
        assert lost.value.offset == 488
        with pytest.raises(MediumError) as lost:
            write(disk, 512, bytes(512))
        assert lost.value.offset == 512


def test_a_partition(image: Path) -> None:
    content = bytearray(image.read_bytes() * 8)
    struct.pack_into("<4xB3xII", content, 446 + 16, 0x83, 4, 8)
    content[510:512] = b"\x55\xaa"
    image.write_bytes(content)
    document = {"handler": "offset", "partition": 2, "next": str(image)}
    with build(document) as disk:
        assert read(disk, 0, 8 * 512) == content[4 * 512 : 12 * 512]
        assert disk.geometry.size == 8 * 512
        identity = disk.identity
    with build({"handler": "offset", "offset": 2048, "length": 4096, "next": str(image)}) as disk:
        assert disk.identity == identity
    with pytest.raises(UsageError, match="there is no partition 1; there are: 2"):
        build({**document, "partition": 1}).open()


def test_a_partition_that_is_larger_than_the_disk(image: Path) -> None:
    content = bytearray(image.read_bytes())
    struct.pack_into("<4xB3xII", content, 446, 0x83, 4, 1 << 20)
    content[510:512] = b"\x55\xaa"
    image.write_bytes(content)
    with pytest.raises(UsageError, match="does not fit"):
        build({"handler": "offset", "partition": 1, "next": str(image)}).open()


@pytest.mark.parametrize("more", [{"offset": 512}, {"length": 512}])
def test_a_partition_and_a_place(image: Path, more: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match='say "partition", or "offset" and "length"'):
        build({"handler": "offset", "partition": 1, "next": str(image), **more})
