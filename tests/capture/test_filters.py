"""Filters of a trace."""

import pytest

from tests.capture.tracing import command
from vscsihba.capture import filters
from vscsihba.errors import UsageError

READ_10 = command("28 00 00 00 08 00 00 00 08 00")
READ_16 = command("88 00 00 00 00 00 00 00 10 00 00 00 00 08 00 00")
INQUIRY = command("12 00 00 00 60 00")
CAPACITY = command("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00")
UNKNOWN = command("c9 00 00 00 00 00 00 00 00 00")
ALL = {"read10": READ_10, "read16": READ_16, "inquiry": INQUIRY, "capacity": CAPACITY, "unknown": UNKNOWN}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("READ", {"read10", "read16"}),
        ("read(10)", {"read10"}),
        ("28h", {"read10"}),
        ("0x88,INQUIRY", {"read16", "inquiry"}),
        ("C9h", {"unknown"}),
        ("READ CAPACITY", {"capacity"}),
        ("9e", None),
    ],
)
def test_opcodes(text: str, chosen: set[str] | None) -> None:
    if chosen is None:
        with pytest.raises(UsageError, match="no command is named '9e'"):
            filters.by_opcode(text)
        return
    wanted = filters.by_opcode(text)
    assert {name for name, seen in ALL.items() if wanted(seen)} == chosen


def test_a_misspelt_command_is_corrected() -> None:
    with pytest.raises(UsageError, match="INQUIRY"):
        filters.by_opcode("INQUIRI")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("2048-2055", {"read10"}),
        ("0-2047", set()),
        ("2055", {"read10"}),
        ("2056", set()),
        ("2040-2048", {"read10"}),
        ("2056-", {"read16"}),
        ("0-", {"read10", "read16"}),
    ],
)
def test_blocks(text: str, chosen: set[str]) -> None:
    wanted = filters.by_blocks(text)
    assert {name for name, seen in ALL.items() if wanted(seen)} == chosen


@pytest.mark.parametrize("text", ["", "a-b", "5-4", "-4"])
def test_no_range_of_blocks(text: str) -> None:
    with pytest.raises(UsageError, match="range of blocks"):
        filters.by_blocks(text)


@pytest.mark.parametrize(("text", "shown"), [("999us", True), ("1.5ms", False), ("0.0005s", True)])
def test_slow_commands(text: str, shown: bool) -> None:
    assert filters.slower_than(text)(READ_10) is shown


@pytest.mark.parametrize("text", ["5", "ms", "5m", "-5ms"])
def test_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        filters.slower_than(text)


def test_commands_that_failed() -> None:
    assert filters.failed(command("00" * 6, status=2))
    assert not filters.failed(INQUIRY)


def test_all_filters_must_agree() -> None:
    both = filters.all_of([filters.by_opcode("READ"), filters.by_blocks("4096-")])
    assert [both(READ_10), both(READ_16)] == [False, True]
    assert filters.all_of([])(INQUIRY)
