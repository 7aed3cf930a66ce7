import os
from pathlib import Path

import pytest

from tests.handlers.model import KIB, DiskModel, as_tests, read, write
from vscsihba.errors import MediumError, UsageError
from vscsihba.handlers.stack import Document, build

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
        ({"offset": 3, "length": 512}, "no multiple of the block size"),
        ({"offset": 512, "length": 513}, "no multiple of the block size"),
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
