import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsihba.errors import MediumError
from vscsihba.handlers.pattern import pattern
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read, write

DISK: Document = {"handler": "pattern", "size": "1PiB"}


def test_every_word_tells_its_offset() -> None:
    with build(DISK) as disk:
        words = struct.unpack(">64Q", read(disk, 1 << 49, 512))
    assert words == tuple(range(1 << 49, (1 << 49) + 512, 8))


@given(offset=st.integers(0, 1 << 40), length=st.integers(0, 200), cut=st.integers(0, 200))
def test_pattern_is_the_same_however_it_is_cut(offset: int, length: int, cut: int) -> None:
    cut = min(cut, length)
    assert pattern(offset, length) == pattern(offset, cut) + pattern(offset + cut, length - cut)


def test_takes_what_belongs_there_and_nothing_else() -> None:
    with build(DISK) as disk:
        data = read(disk, 4100, 1000)
        write(disk, 4100, data)
        with pytest.raises(MediumError) as wrong:
            write(disk, 4108, data)
        assert 4108 <= wrong.value.offset < 4116
        with pytest.raises(MediumError) as wrong:
            disk.write_zeroes(8, 8, may_unmap=True)
        assert wrong.value.offset == 15


def test_resizes() -> None:
    with build(DISK) as disk:
        disk.resize(1 << 20)
        assert disk.geometry.size == 1 << 20
