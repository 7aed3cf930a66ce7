"""Sizes as text."""

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vscsihba.errors import UsageError
from vscsihba.units import counted, exact_size, format_seconds, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("1k", 1024),
        ("64M", 64 << 20),
        ("64 MiB", 64 << 20),
        (" 64MiB\n", 64 << 20),
        ("64mib", 64 << 20),
        ("64MB", 64_000_000),
        ("1.5TiB", 3 << 39),
        ("0.5K", 512),
        ("10GiB", 10 << 30),
        ("2P", 2 << 50),
        ("1EB", 10**18),
        ("16E", 1 << 64),
    ],
)
def test_size_is_parsed(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "+1",
        "1..5",
        ".5M",
        "1.M",
        "1e3",
        "1,5M",
        "10 G B",
        "10GiBs",
        "1iB",
        "0x10",
        "٣",
        "9" * 5000,
    ],
)
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size; write it like"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1.5", "0.1K", "0.0001MiB", "1.0000000000000000001G"])
def test_part_of_a_byte_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a whole number of bytes; round it"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 64, "16.0 EiB"),
        (1 << 74, "16384.0 EiB"),
    ],
)
def test_size_is_formatted(size: int, text: str) -> None:
    assert format_size(size) == text


@settings(deadline=None)
@given(st.integers(0, 1 << 70))
def test_formatted_size_is_a_size_again(size: int) -> None:
    """The first four digits survive: 1023.9 is the longest number."""
    number, unit = format_size(size).split()
    tenth = parse_size(f"1{unit}") / 10
    back = float(number) * tenth * 10
    assert abs(back - size) <= 0.5 * tenth + 1


@settings(deadline=None)
@given(st.integers(0, 1 << 70), st.sampled_from(["", "B", "K", "KiB", "kb", "M", "gib", "T", "PB", "E"]))
def test_whole_numbers_scale(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * parse_size(f"1{unit}")


@settings(deadline=None)
@given(st.text(max_size=20) | st.from_regex(r"[0-9.]{1,8} ?[kmgtpeib]{0,3}", fullmatch=True))
@example("1" * 31)
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize(
    ("size", "said"),
    [(10 << 30, "10GiB"), (1536 << 20, "1536MiB"), (0, 0), (512, 512), (1025, 1025), (1 << 60, "1EiB")],
)
def test_exact_size_uses_the_largest_unit_without_a_fraction(size: int, said: str | int) -> None:
    assert exact_size(size) == said


@settings(deadline=None)
@given(st.integers(0, 1 << 70))
def test_exact_size_is_undone_by_parsing(size: int) -> None:
    assert parse_size(str(exact_size(size))) == size


def test_one_thing_has_no_s() -> None:
    assert [counted(count, "LUN") for count in (0, 1, 2)] == ["0 LUNs", "1 LUN", "2 LUNs"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (8.5e-7, "850 ns"),
        (9.996e-7, "1.00 us"),
        (1.23e-5, "12.3 us"),
        (4.05e-3, "4.05 ms"),
        (0.2504, "250 ms"),
        (0.9999, "1.00 s"),
        (61.04, "61.0 s"),
        (4398.0, "4398 s"),
    ],
)
def test_short_times_have_three_digits(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
