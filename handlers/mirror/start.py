"""Opening a mirror: reads the copies of its metadata, decides by them, and begins a session.

`assembly` decides; this module opens what there is, and makes a mirror where there is none yet.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from uuid import uuid4

import msgspec

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.mirror.assembly import Candidate, Verdict, choose, copies_of, judge, same_mirror
from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.mark import MARK, is_empty, length_with_mark, make_room
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.mirror.metadata import MOST_LEGS, LegEntry, Metadata, identity_text
from vscsihba.handlers.mirror.state import MirrorState, create_state
from vscsihba.handlers.shared.superblock import SLOT

_Found = Mapping[MirrorLeg, Candidate]


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Options of a document for a mirror that is opened.

    Attributes:
        path: Of the state file.
        create: Make the state file if it is missing.
        region_size: Bytes of a region of a new mirror.
        overwrite: The other legs of a new mirror need not be empty.
        decide: Which leg has all the data, if the marks do not say.
        timeout: Seconds to wait for a leg; None for ever.
    """

    path: str
    create: bool
    region_size: int
    overwrite: bool
    decide: str
    timeout: float | None


def open_members(legs: Sequence[MirrorLeg], options: StartOptions) -> Members:
    """Open the legs that can be opened, and return them once they and the state file have begun a session.

    Raises:
        UsageError: Legs of a new mirror do not fit, or would be overwritten.
        HostError: No leg can be said to have all the data.
        OSError: The outcome cannot be recorded by a majority.
    """
    if len({leg.document for leg in legs}) < len(legs):
        raise UsageError("two legs of the mirror are the same")
    if len(legs) > MOST_LEGS:
        raise UsageError(f"a mirror has at most {MOST_LEGS} legs")
    state = MirrorState(options.path) if os.path.lexists(options.path) else None
    try:
        opened = _look(legs, None if state is None else state.metadata, options.timeout)
        candidates = list(opened.values())
        if same_mirror(options.path, None if state is None else state.metadata, candidates) is None:
            new = _plan(legs, opened, options)
            create_state(options.path, new)
            state = MirrorState(options.path)
            return _begin(legs, opened, Members(list(legs), state, new, options.timeout), first=legs[0])
        copy = None if state is None else state.metadata
        metadata, log_counts = choose(options.path, copy, candidates, options.decide)
        metadata = _with_block_size(metadata, legs, opened)
        if state is None:
            _check_create(options)
            create_state(options.path, msgspec.structs.replace(metadata, leg=""))
            state = MirrorState(options.path)
        if not log_counts:
            state.mark_all()
        return _begin(legs, opened, Members(list(legs), state, metadata, options.timeout), first=None)
    except BaseException:
        close_all(legs, state)
        raise


def close_all(legs: Sequence[MirrorLeg], state: MirrorState | None) -> None:
    """Close legs and state file, all of them even if one fails.

    Raises:
        OSError: The last failure.
    """
    with ExitStack() as closing:
        if state is not None:
            closing.callback(state.close)
        for leg in reversed(legs):
            closing.callback(leg.close)


def _look(
    legs: Sequence[MirrorLeg], state: Metadata | None, timeout: float | None
) -> dict[MirrorLeg, Candidate]:
    """Open legs, and return what is known of those that could be opened."""
    opened: dict[MirrorLeg, Candidate] = {}
    for leg in legs:
        if leg.open(timeout) is None:
            continue
        try:
            opened[leg] = leg.candidate(state, timeout)
        except OSError as error:
            leg.drop(error)
    refused = copies_of(list(opened.values()))
    for number, leg in enumerate(list(opened)):
        if number in refused:
            leg.drop(refused[number])
            del opened[leg]
    return opened


def _begin(legs: Sequence[MirrorLeg], opened: _Found, members: Members, first: MirrorLeg | None) -> Members:
    """Give each leg its standing, and record that a session has begun."""
    for leg, candidate in opened.items():
        # Nobody resizes yet, so `fitting` need not be held.
        _place(leg, candidate, members, is_first=leg is first)
    if not members.standing(Standing.WHOLE):
        reasons = "; ".join(f"{leg}: {leg.error or 'it is behind'}" for leg in legs)
        raise HostError(
            f"{members.state.path}: no leg that has all the data can be opened ({reasons})",
            cure="bring one back",
        )
    # Twice, so that each copy names this session as the last one that every leg has seen: an older
    # copy of a leg is noticed then.
    for _ in range(2):
        members.keep()
        members.record.check_state()
    return members


def _place(leg: MirrorLeg, candidate: Candidate, members: Members, *, is_first: bool) -> None:
    """Give a leg its standing; one that cannot be used is gone, and says why."""
    metadata = members.metadata
    if candidate.mark.metadata is not None and candidate.mark.metadata.uuid == metadata.uuid:
        members.record.saw(candidate.mark.metadata.event)
    try:
        verdict = (
            Verdict(metadata.legs[0].uuid, whole=True)
            if is_first
            else judge(candidate, metadata, opening=True)
        )
        members.check_place(verdict)
        members.fit(leg, verdict)
        members.enlist(leg, verdict)
        if not verdict.whole:
            members.record.introduce(leg)
        leg.standing = Standing.WHOLE if verdict.whole else Standing.BEHIND
    except (UsageError, OSError) as error:
        leg.drop(error)


def _block_size(legs: Sequence[MirrorLeg]) -> int:
    """Return the logical block in bytes that suits all of some legs."""
    return max(leg.geometry.block_size for leg in legs)


def _with_block_size(metadata: Metadata, legs: Sequence[MirrorLeg], opened: _Found) -> Metadata:
    """Return the metadata with the block size of the disk; an earlier release has not recorded it.

    It is recorded when all legs are open. Without it the disk has other blocks when a leg is missing.
    """
    marks = [candidate.mark.metadata for candidate in opened.values()]
    ours = [mark for mark in marks if mark and mark.uuid == metadata.uuid and metadata.entry(mark.leg)]
    block = _block_size(legs)
    if metadata.block_size or len(ours) < len(legs) or metadata.size % block:
        return metadata
    return msgspec.structs.replace(metadata, block_size=block)


def _check_create(options: StartOptions) -> None:
    if not options.create:
        raise UsageError(f"{options.path}: no such mirror", cure='make it with "create": true')


def _plan(legs: Sequence[MirrorLeg], opened: dict[MirrorLeg, Candidate], options: StartOptions) -> Metadata:
    """Return the metadata of a new mirror: the first leg has all the data, the others have none of it."""
    _check_create(options)
    for leg in legs:
        if leg not in opened:
            raise HostError(f"{leg} of the new mirror cannot be opened: {leg.error}")
        if leg.capabilities.read_only:
            raise UsageError(f"{leg} of the new mirror is read-only")
    first, *others = legs
    if any(leg.geometry.size < first.geometry.size for leg in others):
        raise UsageError("a leg of the new mirror is smaller than the first one", cure="enlarge it")
    for leg in others:
        if not options.overwrite and (opened[leg].mark.damage or not opened[leg].is_empty()):
            raise UsageError(
                f"{leg} is not empty, and a new mirror would overwrite it with the data of {first}",
                cure='leave it out, empty it, or say "overwrite": true',
            )
        opened[leg] = replace(opened[leg], overwrite=True)
    entry = LegEntry(uuid=str(uuid4()), state="in", event=0, identity=identity_text(first.identity))
    size, block = _size_of(first, options.timeout), _block_size(legs)
    if size % block:
        raise UsageError(
            f"the {size} bytes of {first} are no multiple of {block}, the largest block of a leg",
            cure="enlarge it",
        )
    return Metadata(
        uuid=str(uuid4()),
        event=0,
        session="",
        size=size,
        region_size=options.region_size,
        block_size=block,
        legs=(entry,),
    )


def _size_of(first: MirrorLeg, timeout: float | None) -> int:
    """Return the size of the disk of a new mirror: that of its first leg, unless an empty one cannot grow."""
    size = first.geometry.size
    if first.submit(lambda disk: make_room(disk, size)).result(timeout):
        return size
    smaller = size // SLOT * SLOT - MARK
    if smaller <= 0 or not first.submit(lambda disk: is_empty(disk, size)).result(timeout):
        raise UsageError(
            f"{first} holds data and has no room for a mark behind them: "
            f"it has {size} bytes, and {length_with_mark(size)} are needed",
            cure='enlarge it, or make it a "split" of itself and a file of 8192 bytes',
        )
    return smaller
