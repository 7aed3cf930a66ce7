"""The metadata of a mirror: which legs it has, and which of them have all the data.

Every leg carries a copy (`mark`), and the state file another one (`state`). Each change
has a higher event count than the one before. Copies are counted as votes: two for each leg that is in,
one for the state file. A change counts once more than half of the votes of the metadata before it
have it on stable storage, so any two such majorities have a copy in common. A copy names the voters of the
last change that is known to have counted, if they are others than its own: a change that has not counted
must not be believed by its own voters alone.

This module knows the text of a copy, not where it is stored. docs/formats/mirror.md describes it.
"""

import hashlib
from collections.abc import Collection, Container
from typing import Literal

import msgspec

from vscsihba.errors import HostError

VERSION = 2
MOST_LEGS = 8
MOST_ENTRIES = 13
"""Entries of legs, and of legs that are known no more, that are sure to fit into one copy."""
_LONGEST_NAME = 60
_LONGEST_IDENTITY = 90

State = Literal["in", "behind", "out"]
"""``in``: the leg has all the data; ``behind``: it is being made equal; ``out``: it is not used."""


class LegEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One leg, as a copy of the metadata describes it.

    Attributes:
        uuid: Of the leg.
        state: Whether it has all the data.
        event: The last event count known to be in the leg's own mark; 0 if it has no mark yet.
        until: The last event count that may be in the mark of a leg that is out.
        size: Capacity of the disk when that mark was written, in bytes: the mark lies behind that.
        identity: Of a medium without a mark (event 0), or its digest if it is long; else empty.
        name: Identity of the medium, cut short; for messages only.
    """

    uuid: str
    state: State
    event: int
    until: int = 0
    size: int = 0
    identity: str = ""
    name: str = ""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of a mirror's metadata.

    Attributes:
        version: Of this format.
        uuid: Of the mirror.
        leg: UUID of the leg that carries this copy; empty in the state file.
        event: Event count of the last change.
        state_event: The last event count known to be in the state file.
        session: UUID of the opening of the mirror that made the change.
        size: Capacity in bytes.
        region_size: Bytes of a region of the dirty region log.
        block_size: Bytes of a logical block of the disk; 0 if that was never recorded.
        legs: All legs, in use or not.
        electors: UUIDs of the voters of the last change that is known to have counted; None if they are
            those of this copy.
    """

    version: int = VERSION
    uuid: str
    leg: str = ""
    event: int
    state_event: int = 0
    session: str
    size: int
    region_size: int
    legs: tuple[LegEntry, ...]
    block_size: int = 0
    electors: tuple[str, ...] | None = None

    @property
    def regions(self) -> int:
        """Regions of the disk."""
        return -(-self.size // self.region_size)

    @property
    def voters(self) -> frozenset[str]:
        """UUIDs of the legs that are in and carry a mark."""
        return frozenset(leg.uuid for leg in self.legs if leg.state == "in" and leg.event > 0)

    @property
    def members(self) -> frozenset[str]:
        """UUIDs of the legs that are in."""
        return frozenset(leg.uuid for leg in self.legs if leg.state == "in")

    @property
    def sizes(self) -> frozenset[int]:
        """The capacities behind which marks may lie, in bytes."""
        return frozenset({self.size, *(leg.size for leg in self.legs if leg.event)})

    def entry(self, uuid: str) -> LegEntry | None:
        """Return the entry of a leg, None if the mirror has no such leg."""
        return next((leg for leg in self.legs if leg.uuid == uuid), None)

    @property
    def counted_voters(self) -> frozenset[str]:
        """UUIDs of the voters of the last change that is known to have counted."""
        return self.voters if self.electors is None else frozenset(self.electors)

    def is_majority(self, legs: Container[str], *, state_file: bool) -> bool:
        """Return whether some legs, with or without the state file, have more than half of the votes."""
        return is_majority(self.voters, legs, state_file=state_file)


def is_majority(voters: Collection[str], legs: Container[str], *, state_file: bool) -> bool:
    """Return whether some legs, with or without the state file, have more than half of the votes.

    Args:
        voters: UUIDs of all legs with votes: two each, and one vote is the state file's.
        legs: UUIDs of the legs that agree.
        state_file: The state file agrees.
    """
    return 2 * (2 * sum(leg in legs for leg in voters) + state_file) > 1 + 2 * len(voters)


def encode(metadata: Metadata) -> bytes:
    """Return the text of a copy."""
    return msgspec.json.encode(metadata)


def decode(text: bytes) -> Metadata:
    """Return the metadata of a copy.

    Raises:
        HostError: A later release has written it, or it makes no sense.
    """
    try:
        fields = msgspec.json.decode(text, type=dict)
        if fields.get("version") != VERSION:
            raise HostError(
                f"the mirror is of version {fields.get('version')}, known is {VERSION}",
                cure="open it with a newer release",
            )
        return msgspec.convert(fields, Metadata)
    except msgspec.MsgspecError as error:
        raise HostError(
            f"the metadata of the mirror makes no sense: {error}", cure="restore it from a copy"
        ) from error


def identity_text(identity: str) -> str:
    """Return the identity of the medium in the entry of a leg without a mark."""
    is_plain = identity.isascii() and identity.isprintable() and not set(identity) & set('"\\')
    if is_plain and len(identity) <= _LONGEST_IDENTITY:
        return identity
    return "sha256:" + hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:32]


def short(identity: str) -> str:
    """Return the end of a medium's identity, as printable text of at most 60 bytes."""
    printable = "".join(
        letter if letter.isprintable() and letter not in '"\\' else "?" for letter in identity
    )
    return printable.encode(errors="replace")[-_LONGEST_NAME:].decode(errors="ignore")
