"""Assembly: the decision which legs have all the data, from the copies of a mirror's metadata.

The copy with the highest event count is believed where more than half of its votes can be seen, and of the
votes of the last change that is known to have counted, so that no later change can be hidden in the copies
that are missing. Two copies of which each says that the other's leg is out contradict each other, whatever
their event counts, and so do two sessions of which neither has seen the copies of the other one; then a
majority of the legs in both of them and the state file is needed. Where that does not decide, a person can,
for one leg at one event count, so the same words decide nothing a second time.

All of this is pure computation. How copies are read and written is not this module's business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from vscsihba.errors import HostError
from vscsihba.handlers.mirror.mark import FoundMark
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata, identity_text, is_majority


@dataclass(frozen=True, slots=True)
class Candidate:
    """A leg that could be opened, and might take part.

    Attributes:
        label: Names it in messages.
        identity: Of its medium.
        mark: Its mark.
        is_empty: Tells whether its medium has nothing but zeroes; may raise ``OSError``.
        overwrite: Its present content may be overwritten.
        is_known_as: Tells whether an identity that was recorded once names its medium; may raise ``OSError``.
    """

    label: str
    identity: str
    mark: FoundMark
    is_empty: Callable[[], bool]
    overwrite: bool = False
    is_known_as: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Standing of a leg: its part in the mirror.

    Attributes:
        uuid: Of the leg.
        whole: It has all the data.
        everything: All of it has to be written, not just the dirty regions.
        event: The event count in its mark; 0 if it has none.
        size: Capacity of the disk in its mark, in bytes.
        problem: Why it cannot be used; empty if it can.
    """

    uuid: str = ""
    whole: bool = False
    everything: bool = False
    event: int = 0
    size: int = 0
    problem: str = ""


def same_mirror(path: str, state: Metadata | None, legs: Sequence[Candidate]) -> str | None:
    """Return the UUID of the mirror that the copies are of; None if there is no copy.

    Raises:
        HostError: They are of several mirrors, and no state file says which one is meant.
    """
    if state is not None:
        return state.uuid
    uuids = sorted({leg.mark.metadata.uuid for leg in legs if leg.mark.metadata is not None})
    if len(uuids) > 1:
        raise HostError(
            f"{path}: there is no state file, and the legs are of several mirrors: {describe(None, legs)}",
            cure="bring the state file back, or leave out the legs of other mirrors",
        )
    return uuids[0] if uuids else None


def choose(
    path: str, state: Metadata | None, legs: Sequence[Candidate], decide: str
) -> tuple[Metadata, bool]:
    """Return the copy to believe, and whether the dirty region log goes with it.

    Args:
        path: Of the state file, for messages.
        state: The copy in the state file.
        legs: Those that could be opened; marks of other mirrors are passed over.
        decide: The words of a person, as a refusal has offered them; empty if there are none.

    Raises:
        HostError: The copies do not decide.
    """
    uuid = same_mirror(path, state, legs)
    marks = [leg.mark.metadata for leg in legs if leg.mark.metadata and leg.mark.metadata.uuid == uuid]
    for mark in marks:
        if decide == token(mark):
            return _alone(mark), False
    copies = [copy for copy in (*marks, state) if copy is not None and copy.members]
    newest = _undisputed(copies)
    if newest is None or not _is_seen(newest, copies):
        words = [f'"decide": "{token(mark)}" for leg {mark.leg[:8]}' for mark in marks]
        raise HostError(
            f"{path}: the marks do not decide which leg has all the data ({describe(state, legs)})",
            cure="bring the missing ones back" + (f", or say {' or '.join(words)}" if words else ""),
        )
    return newest, state is not None and state.session == newest.session


def judge(leg: Candidate, metadata: Metadata, *, opening: bool) -> Verdict:
    """Return the standing of a leg.

    Args:
        leg: The leg.
        metadata: The copy that is believed.
        opening: The mirror is being opened, so the leg cannot have missed a write since.

    Raises:
        OSError: The leg cannot be read.
    """
    mark = leg.mark.metadata
    if mark is not None and mark.uuid != metadata.uuid:
        return Verdict(problem=f"it carries the mark of another mirror, {mark.uuid}, and is never written")
    entry = None if mark is None else metadata.entry(mark.leg)
    if mark is not None and mark.event > metadata.event and not opening:
        return _judge_newer(mark, metadata)
    if mark is not None and entry is not None:
        followed = _has_followed(mark, entry, metadata)
        whole = opening and entry.state == "in" and followed
        return Verdict(entry.uuid, whole, everything=not followed, event=mark.event, size=mark.size)
    if mark is None and not leg.mark.damage and (entry := _unmarked(leg, metadata)) is not None:
        return Verdict(entry.uuid, whole=opening and entry.state == "in")
    if leg.overwrite or (mark is None and leg.is_empty()):
        return Verdict(str(uuid4()), everything=True)
    why = leg.mark.damage or ("it has no mark" if mark is None else "it is part of the mirror no more")
    return Verdict(problem=f"{why}, and is not empty; it is only written with overwrite")


def _judge_newer(mark: Metadata, metadata: Metadata) -> Verdict:
    """Return the standing of a leg that comes back with a mark that is newer than the mirror.

    One of this very session was written when the leg came back before, and that could not be recorded: the
    regions that it lacks are dirty since.
    """
    if mark.session != metadata.session:
        return Verdict(problem=f"its mark is newer than the mirror: event {mark.event}")
    is_new = metadata.entry(mark.leg) is None
    return Verdict(mark.leg, everything=is_new, event=mark.event, size=mark.size)


def copies_of(legs: Sequence[Candidate]) -> dict[int, str]:
    """Return the legs that are copies of other legs, by their number, with the reason to refuse them."""
    best: dict[tuple[str, str], int] = {}
    refused: dict[int, str] = {}
    for number, leg in enumerate(legs):
        mark = leg.mark.metadata
        if mark is None:
            continue
        other = best.setdefault((mark.uuid, mark.leg), number)
        if other == number:
            continue
        rival = legs[other].mark.metadata
        if rival is not None and rival.event < mark.event:
            best[mark.uuid, mark.leg], other, number = number, number, other  # noqa: PLW2901 - they change places
        refused[number] = f"it carries the same mark as {legs[other].label}, so it is a copy of that"
    return refused


def token(mark: Metadata) -> str:
    """Return the value of `decide` that chooses a leg as it is now."""
    return f"{mark.leg}@{mark.event}"


def describe(state: Metadata | None, legs: Sequence[Candidate]) -> str:
    """Return the content of each copy, for messages."""
    parts = [f"state file: {'missing' if state is None else _said(state)}"]
    for leg in legs:
        mark = leg.mark.metadata
        parts.append(f"{leg.label}: {leg.mark.damage or 'no mark' if mark is None else _said(mark)}")
    return "; ".join(parts)


def _said(copy: Metadata) -> str:
    inside = ", ".join(
        sorted(f"{leg.uuid[:8]} ({leg.name or leg.identity})" for leg in copy.legs if leg.state == "in")
    )
    whose = f"leg {copy.leg[:8]} of mirror {copy.uuid[:8]}, " if copy.leg else ""
    return f"{whose}event {copy.event}, in: {inside}"


def _undisputed(copies: Sequence[Metadata]) -> Metadata | None:
    """Return the newest copy, or the one that a majority has where that is disputed; None if none has one."""
    live = [copy for copy in copies if not _is_overtaken(copy, copies)] or copies
    if not live:
        return None
    newest = max(live, key=lambda copy: copy.event)
    others = [copy for copy in copies if not (_is_superseded(copy, copies) or _is_left_by(copy, newest))]
    finished = [copy for copy in others if copy in live and not _is_unfinished(copy, copies)]
    rivals = [copy for copy in finished if _contradict(copy, newest)]
    forks = [copy for copy in finished if _is_fork(copy, newest)]
    # A copy that not every leg has is believed only if another one agrees (`_is_seen`): that is enough.
    overtaken = (
        []
        if _is_unfinished(newest, copies)
        else [copy for copy in others if copy not in live and _is_lost(copy, newest)]
    )
    if not (rivals or forks or overtaken):
        return newest
    forgotten = [copy for copy in rivals if _is_forgotten(copy, newest, copies)]
    contenders = [copy for copy in (newest, *rivals, *forks) if copy not in forgotten]
    # The legs that a forgotten one knows were all removed, as far as is known: they are not asked for.
    voters = frozenset(copy.leg for copy in forgotten).union(
        *(copy.members for copy in (*contenders, *overtaken))
    )
    for choice in contenders:
        if forks and _is_unfinished(choice, copies):
            continue
        if forks or overtaken:
            supporters = _supporters(choice, [*contenders, *overtaken], copies)
            votes = sum(2 * (copy.leg in voters) if copy.leg else 1 for copy in supporters)
        else:
            supporters = _of_one_mind(choice, copies)
            votes = sum(2 if copy.leg else 1 for copy in supporters)
        if 2 * votes > 2 * len(voters) + 1:
            return max(supporters, key=lambda copy: copy.event)
    return None


def _is_overtaken(copy: Metadata, copies: Sequence[Metadata]) -> bool:
    """Return whether another session, which has not seen a copy, has written a leg that is in by it since."""
    return any(other.leg in copy.members and _is_fork(other, copy) for other in copies)


def _is_lost(copy: Metadata, newest: Metadata) -> bool:
    """Return whether an overtaken copy says that other legs are in, and the newest one has not seen it."""
    return (
        copy.session != newest.session and copy.members != newest.members and not _is_known_to(newest, copy)
    )


def _of_one_mind(choice: Metadata, copies: Sequence[Metadata]) -> list[Metadata]:
    """Return the copies by which the same legs are in."""
    return [copy for copy in copies if copy.members == choice.members]


def _supporters(
    choice: Metadata, contenders: Sequence[Metadata], copies: Sequence[Metadata]
) -> list[Metadata]:
    """Return the copies of a fork's session, and those that no other fork knows as they are."""
    sessions = {contender.session for contender in contenders}
    others = [other for other in contenders if other.session != choice.session]
    return [
        copy
        for copy in copies
        if not _is_put_back(copy, copies)
        and (
            copy.session == choice.session
            if copy.session in sessions
            else _is_known_to(choice, copy) and not any(_is_known_to(other, copy) for other in others)
        )
    ]


def _is_known_to(other: Metadata, copy: Metadata) -> bool:
    """Return whether a copy is as another one knows it, or as it was when its leg was dropped."""
    if not copy.leg:
        return copy.event == other.state_event
    entry = other.entry(copy.leg)
    return entry is not None and _has_followed(copy, entry, other)


def _is_fork(copy: Metadata, newest: Metadata) -> bool:
    """Return whether another session has written a copy since the newest one saw it.

    Sessions come one after the other, so this one is later, though its event counts are lower: it has not
    seen the newest copy, which perhaps has not counted.
    """
    if copy.session == newest.session:
        return False
    entry = newest.entry(copy.leg)
    if entry is None:
        return not copy.leg and copy.event > newest.state_event
    return copy.event > max(entry.event, entry.until)


def _is_unfinished(copy: Metadata, copies: Sequence[Metadata]) -> bool:
    """Return whether a leg that is in by a copy does not have it: a change counts once all of them do."""
    return any(
        other.leg in copy.members and other.event < copy.event and not _is_put_back(other, copies)
        for other in copies
    )


def _is_put_back(copy: Metadata, copies: Sequence[Metadata]) -> bool:
    """Return whether some copy knows that another one was newer than it is now."""
    if not copy.leg:
        return any(other.state_event > copy.event for other in copies)
    entries = [entry for other in copies if (entry := other.entry(copy.leg)) is not None]
    return any(entry.event > copy.event for entry in entries)


def _is_forgotten(copy: Metadata, newest: Metadata, copies: Sequence[Metadata]) -> bool:
    """Return whether a leg is part of the mirror no more by the newest copy, and its own cannot be believed.

    Its medium is not written, so nothing is lost where it is passed over.
    """
    return bool(copy.leg) and newest.entry(copy.leg) is None and not _is_seen(copy, copies)


def _is_superseded(copy: Metadata, copies: Sequence[Metadata]) -> bool:
    """Return whether a leg that is in by a copy has moved on from it, by its own mark."""
    return any(other.leg in copy.members and other.event > copy.event for other in copies)


def _is_left_by(copy: Metadata, newest: Metadata) -> bool:
    """Tell whether a copy is the one that the newest knows to be on a leg that is not in any more.

    The legs that were in then may all have been removed since, with their marks.
    """
    entry = newest.entry(copy.leg) if copy.leg else None
    return entry is not None and entry.state != "in" and _has_followed(copy, entry, newest)


def _contradict(one: Metadata, other: Metadata) -> bool:
    """Return whether two copies contradict each other: no leg is in by both, or one event differs.

    A leg that is in by both cannot: its own mark has only ever moved on. Copies of one session cannot either:
    one process has written them one after the other, and a leg that is in by the last one has all the data.
    """
    return one.session != other.session and _differ(one, other)


def _differ(one: Metadata, other: Metadata) -> bool:
    return one.members.isdisjoint(other.members) or (
        one.event == other.event and one.members != other.members
    )


def _is_seen(newest: Metadata, copies: Sequence[Metadata]) -> bool:
    """Return whether copies that are as new as `newest` knows them to be have more than half of its votes.

    If the last change that is known to have counted has other voters, more than half of its votes have to be
    seen as well. A copy that another session has written since has no vote.
    """
    seen = {
        copy.leg
        for copy in copies
        if (entry := newest.entry(copy.leg)) is not None
        and (_is_as_known(copy, entry.event, newest) or entry.event <= copy.event <= entry.until)
    }
    state_file = any(not copy.leg and _is_as_known(copy, newest.state_event, newest) for copy in copies)
    return all(
        is_majority(voters, seen, state_file=state_file) for voters in (newest.voters, newest.counted_voters)
    )


def _is_as_known(copy: Metadata, event: int, newest: Metadata) -> bool:
    """Return whether a copy has an event count that is known of it, or a later one of the same session."""
    return copy.event == event or (copy.event > event and copy.session == newest.session)


def _has_followed(mark: Metadata, entry: LegEntry, metadata: Metadata) -> bool:
    """Return whether a mark is one that the mirror may have written to the leg last.

    Else it is on an older copy of the medium, or the leg was used without the others.
    """
    if entry.state == "out":
        return entry.event <= mark.event <= entry.until
    return mark.event <= metadata.event and _is_as_known(mark, entry.event, metadata)


def _unmarked(leg: Candidate, metadata: Metadata) -> LegEntry | None:
    """Return the entry of a leg that had no mark when the copy was written, found by its medium's name."""
    name = identity_text(leg.identity)
    entries = [
        entry
        for entry in metadata.legs
        if entry.event == 0 and (entry.identity == name or leg.is_known_as(entry.identity))
    ]
    if len(entries) != 1:  # media that have one name in common are not known by it
        return None
    return entries[0] if entries[0].state == "in" or metadata.event == 0 else None


def _alone(mark: Metadata) -> Metadata:
    """Return a copy of which the leg that carries it is the only one that has all the data.

    The others may have gone their own way: no mark that they have counts.
    """
    legs = tuple(
        msgspec.structs.replace(leg, state="in")
        if leg.uuid == mark.leg
        else msgspec.structs.replace(leg, state="out", event=mark.event + 1, until=0)
        for leg in mark.legs
    )
    return msgspec.structs.replace(mark, legs=legs, electors=None)
