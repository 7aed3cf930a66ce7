"""A mirror of legs with blocks of several sizes."""

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.handlers.mirror.test_mirror import CONTENT, SIZE, handler_of, mirror, whole, whole_again
from tests.polling import wait_until
from vscsihba.errors import UsageError
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import write


def with_blocks(directory: Path, **options: object) -> dict[str, object]:
    """Return the document of a mirror of a leg with blocks of 4096 bytes and one with blocks of 512."""
    document = mirror(directory, **options)
    document["legs"] = [
        {"handler": "file", "path": str(directory / "a.img"), "block_size": 4096},
        str(directory / "b.img"),
    ]
    return document


def test_the_blocks_of_a_disk_stay_although_the_leg_that_needs_them_is_missing(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(CONTENT[:SIZE] if name == "a" else bytes(SIZE))
    with build(with_blocks(tmp_path)) as made:
        assert made.geometry.block_size == 4096
        wait_until(lambda: whole(made))
    (tmp_path / "a.img").rename(tmp_path / "away")
    with build(with_blocks(tmp_path)) as made:
        assert made.geometry.block_size == 4096
        write(made, 0, b"x" * 4096)
        (tmp_path / "away").rename(tmp_path / "a.img")
        wait_until(lambda: whole_again(made))
        with pytest.raises(UsageError, match="not a multiple of the block size 4096"):
            made.resize(SIZE + 512)


def test_a_mirror_of_an_earlier_release_gets_blocks_that_suit_all_of_its_legs(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(CONTENT[:SIZE] if name == "a" else bytes(SIZE))
    with build(with_blocks(tmp_path)) as made:
        wait_until(lambda: whole(made))
        members = handler_of(made)._members
        members.record.metadata = msgspec.structs.replace(members.metadata, block_size=0)
        assert members.block_size == 4096
    (tmp_path / "a.img").rename(tmp_path / "away")
    with build(with_blocks(tmp_path)) as made:
        assert made.geometry.block_size == 512
        made.resize(SIZE + 512)
    (tmp_path / "away").rename(tmp_path / "a.img")
    with build(with_blocks(tmp_path)) as made:
        assert (
            f"the disk has {SIZE + 512} bytes, no multiple of its blocks of 4096"
            in handler_of(made).status()[0].error
        )
        made.resize(SIZE)
        assert made.geometry.block_size == 512
    with build(with_blocks(tmp_path)) as made:
        assert made.geometry.block_size == 4096
        wait_until(lambda: whole(made))


def test_a_new_mirror_has_whole_blocks_of_all_legs(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(CONTENT[: 512 * 9] if name == "b" else bytes(4096 * 4))
    document = with_blocks(tmp_path)
    document["legs"] = list(reversed(cast("list[Any]", document["legs"])))
    with pytest.raises(UsageError, match=r"4608 bytes of leg 0 .* no multiple of 4096"):
        build(document).open()
    assert not (tmp_path / "mirror.state").exists()
