"""The notation of CDB fields."""

import pytest

from vscsihba.scsi.layout import Layout


@pytest.mark.parametrize(
    ("text", "byte", "bit", "width"),
    [
        ("a=2", 2, 7, 8),
        ("a=2-5", 2, 7, 32),
        ("a=1.4", 1, 4, 1),
        ("a=1.7-1.5", 1, 7, 3),
        ("a=1.4-3", 1, 4, 21),
        ("a=2.0", 2, 0, 1),
    ],
)
def test_layout_place(text: str, byte: int, bit: int, width: int) -> None:
    layout = Layout(text, 6)
    field = layout.fields["a"]
    assert (field.byte, field.bit, field.width) == (byte, bit, width)
    assert layout.mask("a").bit_count() == width


def test_layout_marks_decide_which_bits_are_reserved() -> None:
    layout = Layout("used=1 off=2.7-2.6! any=3~", 6)
    assert layout.usage == 0xFF_FF_00_00_00_00
    assert layout.reserved == 0x00_00_FF_00_FF_FF


def test_layout_points_at_the_leftmost_wrong_bit() -> None:
    layout = Layout("off=2.7-2.5!", 6)
    assert layout.first_reserved(0x00_00_20_01_00_00) == (2, 7)
    assert layout.first_reserved(0x00_00_00_01_00_00) == (3, 0)
    assert layout.first_reserved(0x12_00_00_00_00_00) is None


@pytest.mark.parametrize(
    "text", ["a", "a=", "a=1-", "a=x", "a=6", "a=1 a=2", "a=1 b=1.3", "a=2-1", "a=1.2-1.4"]
)
def test_layout_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Layout(text, 6)
