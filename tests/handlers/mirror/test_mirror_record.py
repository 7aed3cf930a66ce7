"""The record of a mirror: which copies of new metadata are enough for it to count."""

import errno
from typing import Any, cast

import pytest

from vscsihba.handlers.mirror.leg import Standing
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata
from vscsihba.handlers.mirror.record import Record


class Copy:
    """A state file, or a leg with its mark; either may fail."""

    has_room = True
    event = marked_size = 0
    error = OSError(errno.EIO, "broken")

    def __init__(self, uuid: str, standing: Standing, metadata: Metadata | None = None) -> None:
        self.uuid = uuid
        self.standing = standing
        self.metadata = metadata
        self.fails = False
        self.marks = 0
        self.timeouts: list[float] = []
        self.given_up: list[Copy] = []

    def entry(self, state: Any = None) -> LegEntry:
        states: dict[Standing, Any] = {Standing.WHOLE: "in", Standing.BEHIND: "behind", Standing.GONE: "out"}
        return LegEntry(uuid=self.uuid, state=state or states[self.standing], event=1, identity="")

    def save(self, _metadata: Metadata) -> None:
        if self.fails:
            raise self.error

    def begin_mark(self, metadata: Metadata) -> "Copy":
        self.metadata = metadata
        self.marks += 1
        return self

    def give_up(self, outcome: "Copy") -> None:
        self.given_up.append(outcome)

    def result(self, timeout: float | None) -> None:
        self.timeouts.append(timeout or 0.0)
        self.save(cast("Metadata", self.metadata))


def test_what_may_be_believed_after_a_crash_is_not_overruled_by_those_who_counted_before() -> None:
    behind, whole = Copy("a", Standing.BEHIND), Copy("b", Standing.WHOLE)
    legs: Any = [behind, whole]
    metadata = Metadata(
        uuid="m",
        event=1,
        session="",
        size=1 << 20,
        region_size=65536,
        legs=(behind.entry(), whole.entry()),
    )
    state = Copy("", Standing.WHOLE, metadata)
    record = Record(cast("Any", state), metadata, None)
    behind.fails = True
    assert len(record.write(legs, joining=legs[:1])) == 1
    behind.standing = Standing.GONE
    state.fails = True
    assert record.write(legs) == {}
    with pytest.raises(OSError, match="cannot be recorded by a majority"):
        record.check_majority()  # the state file and leg a say that leg a has all the data
    state.fails = False
    assert record.write(legs) == {}
    record.check_majority()
    assert not record.is_due
    state.fails = True
    assert record.write(legs) == {}
    record.check_majority()  # from now on leg b alone is enough, as before


def test_no_leg_is_written_where_it_could_not_make_the_change_count() -> None:
    one, other = Copy("a", Standing.WHOLE), Copy("b", Standing.WHOLE)
    legs: Any = [one, other]
    entries = (one.entry(), other.entry())
    metadata = Metadata(uuid="m", event=1, session="", size=1 << 20, region_size=65536, legs=entries)
    state = Copy("", Standing.WHOLE, metadata)
    record = Record(cast("Any", state), metadata, None)
    other.standing = Standing.GONE
    state.fails = True
    assert record.write(legs) == {}
    with pytest.raises(OSError, match="cannot be recorded by a majority"):
        record.check_majority()
    assert one.marks == 0  # else it would say that it is the only one, and the other leg perhaps likewise
    other.standing = Standing.WHOLE
    assert record.write(legs) == {}
    record.check_majority()  # both legs are enough without the state file
    assert (one.marks, other.marks) == (1, 1)


def test_a_record_of_two_legs_that_both_fail_does_not_count() -> None:
    one, other = Copy("a", Standing.WHOLE), Copy("b", Standing.WHOLE)
    legs: Any = [one, other]
    metadata = Metadata(
        uuid="m", event=1, session="", size=1 << 20, region_size=65536, legs=(one.entry(), other.entry())
    )
    state = Copy("", Standing.WHOLE, metadata)
    record = Record(cast("Any", state), metadata, 7.0)
    assert not record.is_due
    one.fails = other.fails = True
    assert set(record.write(legs)) == set(legs)
    assert (one.given_up, other.given_up) == ([one], [other])  # their marks may be written late
    with pytest.raises(OSError, match="by a majority: the other legs cannot be written") as caught:
        record.check_majority()
    assert caught.value.errno == errno.EIO
    assert record.metadata is metadata
    one.fails = other.fails = False
    assert record.write(legs, size=512 << 10) == {}
    record.check_majority()
    assert record.metadata.event == metadata.event + 2
    assert record.metadata.size == 512 << 10
    assert all(each.event == record.metadata.event for each in (one, other))
    assert all(0 < timeout <= 7 for each in (one, other) for timeout in each.timeouts)


@pytest.mark.parametrize(
    ("error", "number", "text"),
    [
        (OSError(errno.ENOSPC, "No space left"), errno.ENOSPC, "No space left"),
        (OSError("in words only"), errno.EIO, "in words only"),
    ],
)
def test_a_record_that_does_not_count_tells_the_error_of_the_state_file(
    error: OSError, number: int, text: str
) -> None:
    leg = Copy("a", Standing.WHOLE)
    metadata = Metadata(uuid="m", event=1, session="", size=1 << 20, region_size=65536, legs=(leg.entry(),))
    state = Copy("", Standing.WHOLE, metadata)
    record = Record(cast("Any", state), metadata, None)
    leg.fails = state.fails = True
    state.error = error
    record.write(cast("Any", [leg]))
    with pytest.raises(OSError, match=f"by a majority: {text}") as caught:
        record.check_majority()
    assert caught.value.errno == number
    with pytest.raises(OSError, match=text):
        record.check_state()


@pytest.mark.parametrize("has_room", [True, False])
def test_a_leg_is_introduced_by_its_mark_if_it_has_room_for_one(has_room: bool) -> None:
    old, new = Copy("a", Standing.WHOLE), Copy("b", Standing.GONE)
    new.has_room = has_room
    metadata = Metadata(uuid="m", event=5, session="", size=1 << 20, region_size=65536, legs=(old.entry(),))
    record = Record(cast("Any", Copy("", Standing.WHOLE, metadata)), metadata, None)
    record.introduce(cast("Any", new))
    assert (old.marks, new.marks) == (0, int(has_room))
    assert (new.event, new.marked_size) == ((6, 1 << 20) if has_room else (0, 0))
    assert [leg.state for leg in new.metadata.legs] == ["in", "behind"] if new.metadata else not has_room
    assert record.metadata is metadata


def test_legs_that_are_not_there_are_remembered_until_every_leg_has_all_the_data() -> None:
    here, unknown = Copy("a", Standing.WHOLE), Copy("", Standing.GONE)
    absent = LegEntry(uuid="b", state="in", event=4, until=4)
    dropped = LegEntry(uuid="c", state="out", event=2, until=3)
    metadata = Metadata(
        uuid="m", event=9, session="", size=1 << 20, region_size=65536, legs=(here.entry(), absent, dropped)
    )
    record = Record(cast("Any", Copy("", Standing.WHOLE, metadata)), metadata, None)
    for _ in range(2):
        assert record.write(cast("Any", [here, unknown])) == {}
        record.check_majority()
        states = {leg.uuid: (leg.state, leg.until) for leg in record.metadata.legs}
        assert states == {"a": ("in", 0), "b": ("out", 9), "c": ("out", 3)}
    assert record.write(cast("Any", [here])) == {}
    record.check_majority()
    assert [leg.uuid for leg in record.metadata.legs] == ["a"]
