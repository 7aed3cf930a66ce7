"""Deciding from copies of a mirror's metadata: pure, so every case is written down as data."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest

from vscsihba.errors import HostError
from vscsihba.handlers.mirror.assembly import Candidate, Verdict, choose, copies_of, describe, judge, token
from vscsihba.handlers.mirror.mark import FoundMark
from vscsihba.handlers.mirror.metadata import (
    MOST_ENTRIES,
    MOST_LEGS,
    LegEntry,
    Metadata,
    State,
    decode,
    encode,
    identity_text,
    short,
)

MIRROR = "mirror-1"
BLANK, FULL = (lambda: True), (lambda: False)


def copy(
    of: str,
    event: int,
    legs: Mapping[str, State],
    *,
    session: str = "s",
    mirror: str = MIRROR,
    known: int = 0,
) -> Metadata:
    """A copy in leg `of` (the state file if empty); the legs have the event count `known`, or `event` - 1."""
    return Metadata(
        uuid=mirror,
        leg=of,
        event=event,
        state_event=event - 1,
        session=session,
        size=1 << 20,
        region_size=65536,
        legs=tuple(
            LegEntry(uuid=name, state=state, event=known or event - 1, until=known or event - 1)
            for name, state in legs.items()
        ),
    )


def leg(mark: Metadata | None, label: str = "leg 0", *, empty: bool = False) -> Candidate:
    return Candidate(label, f"file:/{label}", FoundMark(mark), BLANK if empty else FULL)


BOTH: dict[str, State] = {"a": "in", "b": "in"}
ONLY_A: dict[str, State] = {"a": "in", "b": "out"}
ONLY_B: dict[str, State] = {"a": "out", "b": "in"}


def decided(state: Metadata | None, *marks: Metadata, decide: str = "") -> tuple[int, set[str], bool]:
    """Return event count, legs that are in, and whether the log counts."""
    chosen, log_counts = choose("/m", state, [leg(mark) for mark in marks], decide)
    return chosen.event, set(chosen.members), log_counts


def refused(state: Metadata | None, *marks: Metadata) -> str:
    with pytest.raises(HostError, match="do not decide") as caught:
        choose("/m", state, [leg(mark) for mark in marks], "")
    return str(caught.value)


def test_all_copies_agree() -> None:
    assert decided(copy("", 7, BOTH), copy("a", 7, BOTH), copy("b", 7, BOTH)) == (7, {"a", "b"}, True)


def test_a_leg_and_the_state_file_decide_without_the_other_leg() -> None:
    assert decided(copy("", 7, BOTH), copy("b", 7, BOTH)) == (7, {"a", "b"}, True)


def test_two_legs_decide_without_the_state_file_and_its_log_is_lost() -> None:
    assert decided(None, copy("a", 7, BOTH), copy("b", 7, BOTH)) == (7, {"a", "b"}, False)


def test_one_of_two_legs_does_not_decide_alone() -> None:
    said = refused(None, copy("b", 7, BOTH))
    assert "state file: missing" in said
    assert '"decide": "b@7"' in said


def test_the_state_file_does_not_decide_alone() -> None:
    refused(copy("", 7, BOTH))


def test_a_leg_that_is_in_alone_decides_alone() -> None:
    assert decided(None, copy("a", 7, ONLY_A)) == (7, {"a"}, False)


def test_the_newest_copy_is_believed() -> None:
    stale, fresh = copy("a", 6, BOTH), copy("b", 7, ONLY_B)
    assert decided(None, stale, fresh) == (7, {"b"}, False)
    assert decided(copy("", 7, ONLY_B), stale, fresh) == (7, {"b"}, True)


def test_an_older_copy_of_the_state_file_has_no_vote_and_no_log() -> None:
    assert decided(copy("", 3, BOTH, session="old"), copy("a", 7, BOTH), copy("b", 7, BOTH)) == (
        7,
        {"a", "b"},
        False,
    )
    refused(copy("", 3, BOTH, session="old"), copy("a", 7, BOTH))


def test_an_older_copy_of_a_leg_has_no_vote() -> None:
    refused(None, copy("a", 9, BOTH), copy("b", 3, BOTH))


def test_copies_that_have_gone_different_ways_need_a_majority() -> None:
    one, other = copy("a", 12, ONLY_A), copy("b", 9, ONLY_B, session="t")
    refused(None, one, other)
    assert decided(copy("", 9, ONLY_B, session="t"), one, other) == (9, {"b"}, True)
    assert decided(copy("", 12, ONLY_A), one, other) == (12, {"a"}, True)
    without_c: dict[str, State] = {"a": "in", "b": "in", "c": "out"}
    only_c: dict[str, State] = {"a": "out", "b": "out", "c": "in"}
    one, other = copy("a", 12, without_c), copy("c", 9, only_c, session="t")
    refused(copy("", 9, only_c, session="t"), one, other)  # three votes of seven


def test_a_copy_from_which_a_leg_has_moved_on_contradicts_nothing() -> None:
    """The state file could not be written for a while, and the last change reached one leg only."""
    assert decided(copy("", 12, ONLY_A), copy("a", 15, BOTH), copy("b", 16, ONLY_B)) == (16, {"b"}, True)


def test_a_leg_that_was_left_behind_contradicts_nothing_though_the_others_of_its_time_were_removed() -> None:
    only_c: dict[str, State] = {"b": "out", "c": "in"}
    state, left = copy("", 18, only_c, known=10), copy("b", 10, BOTH, session="earlier")
    newest = copy("c", 18, only_c, known=10)
    assert decided(state, left, newest) == (18, {"c"}, True)
    used_alone = copy("b", 11, ONLY_B, session="t")  # later than the mark that it was left with
    assert decided(None, left, newest) == (18, {"c"}, False)
    refused(None, used_alone, newest)


def test_a_leg_that_the_mirror_does_not_know_any_more_contradicts_it_with_its_own_votes_only() -> None:
    """All legs of its time were removed: those can neither support it nor be missed."""
    state, newest = copy("", 32, {"c": "in"}), copy("c", 32, {"c": "in"})
    left = copy("b", 10, BOTH, session="earlier")
    assert decided(state, left, newest) == (32, {"c"}, True)
    refused(None, left, newest)
    refused(state, left)
    # Those that can be believed by themselves are a part of a mirror that was torn apart, and a majority.
    torn = [copy(name, 10, BOTH, session="earlier") for name in "ab"]
    assert decided(state, *torn, newest) == (10, {"a", "b"}, False)


def known(
    mark: Metadata, *, state_event: int, electors: tuple[str, ...] | None = None, **events: int
) -> Metadata:
    """A copy that knows these event counts of the state file and of legs."""
    legs = tuple(
        msgspec.structs.replace(entry, event=events[entry.uuid], until=events[entry.uuid])
        for entry in mark.legs
    )
    return msgspec.structs.replace(mark, state_event=state_event, electors=electors, legs=legs)


ALL: dict[str, State] = {"a": "in", "b": "in", "c": "in"}
FAILED = known(copy("a", 30, ALL), state_event=10, a=29, b=10, c=10)
"""The mark of leg a after openings that have failed, for no other copy could be written."""
LATER: dict[str, State] = {"a": "out", "b": "in", "c": "in"}


def later(of: str, event: int, legs: Mapping[str, State] = LATER) -> Metadata:
    """A copy of the session in which legs b and c were used without leg a."""
    return known(copy(of, event, legs, session="t"), state_event=event - 1, a=10, b=event - 1, c=event - 1)


def test_a_high_event_count_of_openings_that_failed_is_no_later_change() -> None:
    before = copy("b", 10, ALL, session="r"), copy("c", 10, ALL, session="r")
    assert decided(copy("", 10, ALL, session="r"), FAILED, *before) == (30, set("abc"), False)
    assert decided(None, FAILED, later("b", 13), later("c", 13)) == (13, {"b", "c"}, False)
    assert decided(later("", 13), FAILED, later("b", 13), later("c", 13)) == (13, {"b", "c"}, True)
    refused(later("", 13), FAILED, later("c", 13))  # three votes of seven
    refused(None, FAILED, later("c", 13))
    refused(later("", 13), FAILED)


def test_a_leg_that_is_alone_at_last_is_believed_against_openings_that_failed() -> None:
    only_b: dict[str, State] = {"a": "out", "b": "in", "c": "out"}
    dropped = known(copy("", 14, only_b, session="t"), state_event=13, a=10, b=13, c=12)
    alone = msgspec.structs.replace(dropped, leg="b")
    assert decided(dropped, FAILED, alone, later("c", 12)) == (14, {"b"}, True)
    assert decided(None, FAILED, alone, later("c", 12)) == (14, {"b"}, False)  # leg c has seen that session
    refused(None, FAILED, alone)


def test_an_older_copy_that_is_put_back_supports_no_fork() -> None:
    both = known(copy("a", 30, BOTH), state_event=10, a=29, b=10)
    used = known(copy("b", 13, ONLY_B, session="t"), state_event=12, a=10, b=12)
    put_back = copy("", 10, BOTH, session="r")
    refused(put_back, both, used)
    state = msgspec.structs.replace(used, leg="")
    assert decided(state, both, used) == (13, {"b"}, True)


def test_a_leg_that_was_decided_for_wins_with_its_state_file() -> None:
    """Leg a was used alone, then leg b, for which a person has decided, with a new state file."""
    alone = known(copy("a", 13, ONLY_A), state_event=12, a=12, b=10)
    chosen = known(copy("b", 12, ONLY_B, session="t"), state_event=11, a=11, b=11)
    state = msgspec.structs.replace(chosen, leg="")
    assert decided(state, alone, chosen) == (12, {"b"}, True)
    refused(None, alone, chosen)
    assert decided(msgspec.structs.replace(alone, leg=""), alone, chosen) == (13, {"a"}, True)


def test_a_copy_that_no_fork_has_written_supports_the_one_that_alone_knows_it() -> None:
    both = known(copy("a", 30, BOTH), state_event=10, a=29, b=10)
    used = known(copy("b", 13, ONLY_B, session="t"), state_event=10, a=10, b=12)
    refused(copy("", 10, BOTH, session="r"), both, used)  # both know it
    earlier = msgspec.structs.replace(both, state_event=8)
    assert decided(copy("", 10, BOTH, session="r"), earlier, used) == (13, {"b"}, False)


def test_of_two_sessions_that_have_not_counted_the_later_one_is_believed() -> None:
    """Two openings have failed, each with other legs; no write was acknowledged in either."""
    begun = known(copy("b", 12, LATER, session="t"), state_event=10, a=10, b=10, c=10)
    untouched = copy("c", 10, ALL, session="r")
    assert decided(copy("", 10, ALL, session="r"), FAILED, begun, untouched) == (12, {"b", "c"}, False)
    assert judge(leg(FAILED), begun, opening=True) == Verdict("a", everything=True, event=30, size=1 << 20)
    mark = leg(begun)
    assert judge(mark, FAILED, opening=True) == Verdict("b", everything=True, event=12, size=1 << 20)


def test_a_change_of_the_voters_is_believed_where_the_former_voters_agree() -> None:
    four: dict[str, State] = {**ALL, "d": "in"}
    three = {
        name: known(copy(name, 11, ALL), state_event=10, electors=tuple("abcd"), a=10, b=10, c=10)
        for name in "ab"
    }
    refused(None, *three.values())
    refused(copy("", 9, four, session="r"), *three.values())
    assert decided(copy("", 10, four, session="r"), *three.values()) == (11, set("abc"), False)
    counted = [msgspec.structs.replace(mark, electors=None) for mark in three.values()]
    assert decided(None, *counted) == (11, set("abc"), False)


def test_a_leg_that_the_mirror_does_not_know_is_no_fork() -> None:
    newest = known(copy("c", 32, {"c": "in"}), state_event=5, c=31)
    assert decided(copy("", 5, {"c": "in"}), copy("b", 10, BOTH, session="r"), newest) == (32, {"c"}, True)


def test_a_state_file_is_not_forgotten() -> None:
    both: dict[str, State] = {"c": "in", "d": "in"}
    refused(copy("", 10, BOTH, session="r"), copy("c", 32, both), copy("d", 32, both))


def test_other_legs_that_are_in_are_no_contradiction_where_one_is_in_by_both() -> None:
    """Leg c was replaced by leg a, and leg b has not got the last change."""
    newest = known(copy("a", 12, BOTH), state_event=9, a=11, b=9)
    assert decided(None, newest, copy("b", 9, {"b": "in", "c": "in"}, session="r")) == (12, {"a", "b"}, False)


def test_a_state_file_that_a_leg_has_moved_on_from_is_no_contradiction() -> None:
    newest = known(copy("b", 16, ONLY_B, session="t"), state_event=12, a=15, b=15)
    assert decided(copy("", 12, ONLY_A), copy("a", 15, BOTH), newest) == (16, {"b"}, False)


def test_a_change_that_has_not_reached_every_leg_wins_with_a_majority() -> None:
    newest, other = copy("a", 12, {**BOTH, "c": "out"}), copy("c", 9, {"c": "in"}, session="t")
    state = msgspec.structs.replace(newest, leg="")
    assert decided(state, newest, copy("b", 11, {**BOTH, "c": "out"}), other) == (12, {"a", "b"}, True)


def test_copies_of_one_session_do_not_contradict_each_other() -> None:
    """The removal of leg a failed after leg b had it in its mark; then leg b was dropped."""
    before, removed = copy("a", 28, BOTH, known=27), copy("b", 29, ONLY_B, known=28)
    assert decided(copy("", 45, ONLY_A, known=28), before, removed) == (45, {"a"}, True)
    refused(copy("", 45, ONLY_A, known=28), removed)
    refused(copy("", 45, ONLY_A, known=28), before, msgspec.structs.replace(removed, session="t"))


def test_copies_with_the_same_legs_support_each_other() -> None:
    assert decided(copy("", 12, ONLY_B), copy("a", 11, ONLY_A), copy("b", 11, ONLY_B)) == (12, {"b"}, True)


def test_one_event_count_that_means_two_things_needs_a_majority() -> None:
    one, other = copy("a", 9, BOTH), copy("b", 9, ONLY_B, session="t")
    refused(None, one, other)
    assert decided(copy("", 9, ONLY_B, session="t"), one, other) == (9, {"b"}, True)


def test_a_copy_by_which_no_leg_is_in_says_nothing() -> None:
    """An earlier release wrote one when a leg was dropped while the only other one was being removed."""
    nobody = copy("", 29, {"a": "out", "b": "out"})
    assert decided(nobody, copy("b", 28, ONLY_B)) == (28, {"b"}, True)
    refused(nobody)


def test_a_person_decides_once() -> None:
    one, other = copy("a", 12, ONLY_A), copy("b", 9, ONLY_B, session="t")
    assert decided(None, one, other, decide=token(other)) == (9, {"b"}, False)
    later = copy("b", 10, ONLY_B, session="t")
    with pytest.raises(HostError, match="do not decide"):
        choose("/m", None, [leg(one), leg(later)], token(other))


def test_legs_of_two_mirrors_need_a_state_file() -> None:
    mine, foreign = copy("a", 7, ONLY_A), copy("x", 7, {"x": "in"}, mirror="mirror-2")
    with pytest.raises(HostError, match="the legs are of several mirrors"):
        choose("/m", None, [leg(mine), leg(foreign)], "")
    assert decided(copy("", 7, ONLY_A), mine, foreign) == (7, {"a"}, True)
    later = copy("x", 9, {"x": "in"}, mirror="mirror-2")
    assert decided(copy("", 7, ONLY_A), mine, later) == (7, {"a"}, True)
    assert '"decide": "0123456789@7" for leg 01234567)' in refused(None, copy("0123456789", 7, BOTH)) + ")"


# Legs

NOW = copy("", 7, {"a": "in", "b": "out", "c": "behind"}, known=6)


@pytest.mark.parametrize(
    ("mark", "whole", "everything"),
    [
        (copy("a", 7, BOTH), True, False),
        (copy("a", 6, BOTH), True, False),
        (copy("a", 5, BOTH), False, True),
        (copy("a", 8, BOTH), False, True),
        (copy("b", 6, BOTH), False, False),
        (copy("b", 5, BOTH), False, True),
        (copy("b", 7, BOTH), False, True),
        (copy("c", 7, BOTH), False, False),
        (copy("c", 2, BOTH), False, True),
    ],
)
def test_legs_with_a_mark(mark: Metadata, whole: bool, everything: bool) -> None:
    assert judge(leg(mark), NOW, opening=True) == Verdict(mark.leg, whole, everything, mark.event, mark.size)


def test_a_leg_that_comes_back_is_never_whole() -> None:
    mark = copy("a", 7, BOTH)
    assert judge(leg(mark), NOW, opening=False) == Verdict("a", event=7, size=mark.size)
    newer = copy("a", 8, BOTH, session="t")
    assert "newer than the mirror" in judge(leg(newer), NOW, opening=False).problem
    unknown = copy("z", 8, BOTH, session="t")
    assert "newer than the mirror" in judge(leg(unknown), NOW, opening=False).problem


def test_a_leg_whose_return_could_not_be_recorded_comes_back() -> None:
    """Its mark is newer than what counts, and of this very session."""
    mark, new = copy("b", 9, BOTH), copy("z", 9, BOTH)
    assert judge(leg(mark), NOW, opening=False) == Verdict("b", event=9, size=mark.size)
    assert judge(leg(new), NOW, opening=False) == Verdict("z", everything=True, event=9, size=new.size)
    removed = copy("z", 7, BOTH)
    assert "part of the mirror no more" in judge(leg(removed), NOW, opening=False).problem


def test_an_empty_medium_is_a_new_leg() -> None:
    found = judge(leg(None, empty=True), NOW, opening=True)
    assert (found.whole, found.everything, found.event, found.size) == (False, True, 0, 0)
    assert found.problem == ""
    assert NOW.entry(found.uuid) is None
    removed = leg(copy("z", 7, BOTH), empty=True)  # it may have data where nobody has looked
    assert "part of the mirror no more" in judge(removed, NOW, opening=True).problem


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (FoundMark(), "it has no mark, and is not empty"),
        (FoundMark(damage="its mark is damaged"), "its mark is damaged, and is not empty"),
        (FoundMark(copy("z", 7, BOTH)), "part of the mirror no more"),
    ],
)
def test_what_is_written_only_if_that_is_said(found: FoundMark, message: str) -> None:
    candidate = replace(leg(None), mark=found)
    assert message in judge(candidate, NOW, opening=True).problem
    told = judge(replace(candidate, overwrite=True), NOW, opening=True)
    assert (told.whole, told.everything, told.problem) == (False, True, "")


@pytest.mark.parametrize("empty", [True, False])
def test_the_mark_of_another_mirror_is_never_overwritten(empty: bool) -> None:
    foreign = replace(leg(copy("x", 7, {"x": "in"}, mirror="mirror-2"), empty=empty), overwrite=True)
    assert "the mark of another mirror, mirror-2" in judge(foreign, NOW, opening=True).problem


def test_a_leg_without_a_mark_is_known_by_its_medium_while_it_never_had_one() -> None:
    entry = LegEntry(uuid="a", state="in", event=0, identity=identity_text("file:/leg 0"))
    old = msgspec.structs.replace(NOW, legs=(entry,))
    assert judge(leg(None), old, opening=True) == Verdict("a", whole=True)
    marked = msgspec.structs.replace(NOW, legs=(msgspec.structs.replace(entry, event=3),))
    assert "no mark" in judge(leg(None), marked, opening=True).problem
    assert "part of the mirror no more" in judge(leg(copy("z", 7, BOTH)), old, opening=True).problem
    device = replace(leg(None, "block:wwn-1"), is_known_as=lambda name: name == "file:/leg 0")
    assert judge(device, old, opening=True) == Verdict("a", whole=True)
    assert "no mark" in judge(leg(None, "leg 1"), old, opening=True).problem
    behind = msgspec.structs.replace(old, legs=(msgspec.structs.replace(entry, state="behind"),))
    assert "no mark" in judge(leg(None), behind, opening=True).problem
    version_1 = msgspec.structs.replace(behind, event=0)  # when no leg had a mark
    assert judge(leg(None), version_1, opening=True) == Verdict("a", whole=False)
    twice = msgspec.structs.replace(NOW, legs=(entry, msgspec.structs.replace(entry, uuid="b")))
    assert "no mark" in judge(leg(None), twice, opening=True).problem


def test_copies_are_described_by_the_first_letters_of_their_names() -> None:
    mark = copy("0123456789", 7, {"0123456789": "in", "b": "out"}, mirror="abcdefghij")
    damaged = replace(leg(None, "leg 2"), mark=FoundMark(damage="its mark is damaged"))
    assert describe(None, [leg(mark), leg(None, "leg 1"), damaged]) == (
        "state file: missing; leg 0: leg 01234567 of mirror abcdefgh, event 7, in: 01234567 (); "
        "leg 1: no mark; leg 2: its mark is damaged"
    )
    assert describe(copy("", 3, {}), []) == "state file: event 3, in: "


def test_of_a_leg_and_its_copy_the_newer_one_is_used() -> None:
    old, new = leg(copy("a", 5, BOTH), "leg 0"), leg(copy("a", 7, BOTH), "leg 1")
    assert list(copies_of([old, new])) == [0]
    assert list(copies_of([new, old])) == [1]
    assert "same mark as leg 1" in copies_of([old, new])[0]
    assert copies_of([new, leg(copy("b", 7, BOTH)), leg(None)]) == {}
    assert list(copies_of([new, leg(copy("a", 7, BOTH), "leg 2")])) == [1]


# The text


def test_an_identity_is_kept_if_it_fits() -> None:
    assert identity_text("file:/srv/a.img") == "file:/srv/a.img"
    assert identity_text("file:/" + "x" * 100).startswith("sha256:")
    assert identity_text("file:/\udcff").startswith("sha256:")
    assert identity_text('file:/"').startswith("sha256:")


def test_all_entries_fit() -> None:
    name = short("file:/" + "ä" * 300)
    assert len(name.encode()) <= 60
    entries = tuple(
        LegEntry(
            uuid=f"{number:036}",
            state="behind",
            event=1 << 40,
            until=1 << 40,
            size=1 << 60,
            identity="f" * 32,
            name=name,
        )
        for number in range(MOST_ENTRIES)
    )
    ids = {"uuid": "u" * 36, "leg": "l" * 36, "session": "s" * 36}
    numbers = {"event": 1 << 40, "state_event": 1 << 40, "size": 1 << 60, "block_size": 65536}
    electors = ("e" * 36,) * MOST_LEGS
    assert (
        len(encode(msgspec.structs.replace(NOW, legs=entries, electors=electors, **ids, **numbers)))
        <= 4096 - 24
    )


def test_a_copy_is_read_as_it_was_written() -> None:
    assert decode(encode(NOW)) == NOW
    said = {**msgspec.json.decode(encode(NOW)), "of a later release": 1}
    for key in ("electors", "block_size"):  # which an earlier release does not write
        del said[key]
    assert decode(msgspec.json.encode(said)) == NOW


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"version":3}', "version 3, known is 2"),
        (b"{", "makes no sense"),
        (b'{"version":2}', "makes no sense"),
    ],
)
def test_copies_that_cannot_be_read(text: bytes, message: str) -> None:
    with pytest.raises(HostError, match=message):
        decode(text)
