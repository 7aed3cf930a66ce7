"""The metadata of a mirror through many lives, with copies in memory that fail, are absent and are lost.

The real rules (`assembly`, `record`, `members`) run on two to five legs whose data is one number: that of the
last write. A leg that is believed to have all the data has the number of the last acknowledged one.
"""

import errno
import random
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.mirror.assembly import Candidate, choose, judge
from vscsihba.handlers.mirror.leg import MirrorLeg, Standing
from vscsihba.handlers.mirror.mark import FoundMark
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata, decode, encode
from vscsihba.handlers.shared.token_lock import TokenLock

SIZE = 1 << 20


class KilledError(BaseException):
    """The process was killed; nothing may catch that."""


@dataclass
class Machine:
    """Everything that outlives a process.

    Attributes:
        luck: Chooses the faults.
        media: The legs, by name.
        state: The copy in the state file.
        last: The number of the last write.
        acknowledged: The number of the last write that was acknowledged.
        failing: Names of legs that cannot be written, and an empty name for the state file.
        deadly: Probability that the process is killed at a write.
    """

    luck: random.Random
    media: dict[str, "Medium"] = field(default_factory=dict)
    state: bytes = b""
    last: int = 0
    acknowledged: int = 0
    failing: set[str] = field(default_factory=set)
    deadly: float = 0.0

    def store(self, name: str, put: Callable[[], None]) -> None:
        """Write to a medium, or fail, or be killed before or after that."""
        if self.luck.random() < self.deadly:
            if self.luck.random() < 0.5:
                put()
            raise KilledError
        if name in self.failing and self.luck.random() < 0.9:
            if self.luck.random() < 0.1:
                put()  # a write that is reported as failed may have been carried out
            raise OSError(errno.EIO, "broken")
        put()


@dataclass
class Medium:
    """A leg's medium: its mark, and the number of the last write that it has."""

    mark: bytes = b""
    number: int = 0


class StateFile:
    """The state file of a process."""

    path = "/m"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.metadata = decode(machine.state)
        self.lock = TokenLock()

    def dirty(self) -> list[int]:
        return []

    def mark_all(self) -> None:
        pass

    def save(self, metadata: Metadata) -> None:
        def put() -> None:
            self.machine.state = encode(metadata)

        self.machine.store("", put)
        self.metadata = metadata


class Leg:
    """A leg as a process sees it."""

    has_room = True
    identity = ""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name
        self.standing = Standing.GONE
        self.uuid, self.event, self.marked_size, self.overwrite = "", 0, 0, False

    def __str__(self) -> str:
        return self.name

    entry = MirrorLeg.entry

    @property
    def medium(self) -> Medium:
        return self.machine.media[self.name]

    def look(self) -> Candidate:
        mark = decode(self.medium.mark) if self.medium.mark else None
        return Candidate(self.name, self.name, FoundMark(mark), lambda: False, overwrite=True)

    def drop(self, _error: object) -> None:
        self.standing = Standing.GONE

    def check_answers(self) -> None:
        pass

    def give_up(self, _future: object) -> None:
        pass

    def begin_mark(self, metadata: Metadata) -> "Writing":
        return Writing(self, encode(msgspec.structs.replace(metadata, leg=self.uuid)))


@dataclass
class Writing:
    """A mark that is being written."""

    leg: Leg
    mark: bytes

    def result(self, _timeout: float | None = None) -> None:
        def put() -> None:
            self.leg.medium.mark = self.mark

        self.leg.machine.store(self.leg.name, put)


class Process:
    """One opening of the mirror.

    Args:
        machine: The media.
        names: The legs of its document.
        present: Those that can be opened.

    Raises:
        HostError: The copies do not decide.
        OSError: The opening cannot be recorded.
    """

    def __init__(self, machine: Machine, names: Collection[str], present: Collection[str]) -> None:
        self.machine = machine
        legs = [Leg(machine, name) for name in names]
        found = {leg: leg.look() for leg in legs if leg.name in present}
        saved = decode(machine.state) if machine.state else None
        metadata, _ = choose("/m", saved, list(found.values()), "")
        if saved is None:
            machine.state = encode(msgspec.structs.replace(metadata, leg=""))
        self.legs = legs
        self.members = Members(cast("Any", legs), cast("Any", StateFile(machine)), metadata, None)
        for leg, candidate in found.items():
            if candidate.mark.metadata is not None:
                self.members.record.saw(candidate.mark.metadata.event)
            verdict = judge(candidate, metadata, opening=True)
            leg.uuid, leg.event = verdict.uuid, verdict.event
            if not verdict.whole:
                self.members.record.introduce(cast("Any", leg))
            leg.standing = Standing.WHOLE if verdict.whole else Standing.BEHIND
        if not self.in_use(Standing.WHOLE):
            raise HostError("no leg that has all the data")
        for _ in range(2):
            self.members.keep()
            self.members.record.check_state()

    def in_use(self, *standings: Standing) -> list[Leg]:
        return [leg for leg in self.legs if leg.standing in standings]

    def write(self, failing: float) -> None:
        """Write the next number to all legs in use, and note that if it is acknowledged."""
        self.machine.last += 1
        asked = self.in_use(Standing.WHOLE, Standing.BEHIND)
        failures = {
            leg: OSError(errno.EIO, "broken") for leg in asked if self.machine.luck.random() < failing
        }
        for leg in asked:
            if leg not in failures and leg.standing is Standing.WHOLE:
                leg.medium.number = self.machine.last
        if failures:
            self.members.judge(cast("Any", asked), cast("Any", failures))
        if self.members.record.is_due:
            self.members.keep()
        self.machine.acknowledged = self.machine.last

    def copy(self) -> None:
        """Make the legs that are behind equal."""
        behind = self.in_use(Standing.BEHIND)
        number = self.in_use(Standing.WHOLE)[0].medium.number
        for leg in behind:
            leg.medium.number = number
        self.members.promote(cast("Any", behind))

    def admit(self, leg: Leg) -> None:
        """Let a leg come back."""
        if leg.standing is not Standing.GONE:
            return
        verdict = judge(leg.look(), self.members.metadata, opening=False)
        self.members.check_place(verdict)
        leg.uuid, leg.event = verdict.uuid, verdict.event
        try:
            self.members.record.introduce(cast("Any", leg))
            leg.standing = Standing.BEHIND
            self.members.keep()
        except OSError:
            leg.standing = Standing.GONE
            raise

    def check(self) -> None:
        """Check that no leg that is read is older than the last acknowledged write."""
        for leg in self.in_use(Standing.WHOLE):
            assert leg.medium.number >= self.machine.acknowledged, f"{leg} is read, and is stale"


def made(luck: random.Random, names: Collection[str]) -> Machine:
    """Return a machine with a mirror whose legs are equal and closed."""
    entries = tuple(LegEntry(uuid=f"uuid-{name}", state="in", event=4) for name in names)
    metadata = Metadata(
        uuid="m", event=5, state_event=4, session="made", size=SIZE, region_size=65536, legs=entries
    )
    media = {name: Medium(encode(msgspec.structs.replace(metadata, leg=f"uuid-{name}"))) for name in names}
    return Machine(luck, media, encode(metadata))


def live(machine: Machine, names: Collection[str], present: Collection[str]) -> Process | None:
    """Lead one life of the mirror; return its process if it was closed in good order."""
    luck = machine.luck
    try:
        process = Process(machine, names, present)
        process.check()
        for _ in range(luck.randrange(12)):
            act = luck.choice((process.write, process.write, process.copy, process.admit))
            with suppress(OSError, UsageError):
                if act == process.admit:
                    process.admit(luck.choice([leg for leg in process.legs if leg.name in present]))
                elif act == process.copy:
                    process.copy()
                else:
                    process.write(luck.choice((0.0, 0.3)))
        for _ in range(2):
            process.members.keep()
    except (HostError, OSError, KilledError):
        return None
    return process


def play(seed: int) -> bool:
    """Play a history; return whether all copies were there in the end, as they were written last.

    Raises:
        AssertionError: A stale leg was read, or the mirror was refused with all of its copies.
    """
    luck = random.Random(seed)
    names = "abcde"[: luck.randrange(2, 6)]
    machine = made(luck, names)
    older = {name: machine.state if not name else replace(machine.media[name]) for name in ("", *names)}
    touched = luck.random() < 0.3
    for _ in range(luck.randrange(1, 9)):
        machine.failing = {name for name in ("", *names) if luck.random() < luck.choice((0.0, 0.2, 0.5))}
        machine.deadly = luck.choice((0.0, 0.0, 0.02, 0.1))
        present = [name for name in names if luck.random() < luck.choice((0.5, 0.8, 1.0))]
        for _ in range(luck.choice((1, 1, 8))):  # a service tries again
            if live(machine, names, present) and not touched:
                older = {
                    name: machine.state if not name else replace(machine.media[name]) for name in ("", *names)
                }
    machine.failing, machine.deadly = set(), 0.0
    if touched:  # one copy is put back as it was
        name = luck.choice(("", *names))
        if name:
            machine.media[name] = cast("Medium", older[name])
        else:
            machine.state = cast("bytes", older[name])
        left = list(names)
    elif luck.random() < 0.5:  # some are lost
        left = [name for name in names if luck.random() < 0.5]
        machine.state = machine.state if luck.random() < 0.5 else b""
    else:
        left = list(names)
    is_whole = not touched and len(left) == len(names) and bool(machine.state)
    try:
        Process(machine, left, left).check()
    except HostError:
        assert not is_whole, "refused, though no copy is missing"
    return is_whole


def test_no_acknowledged_write_is_lost_and_a_mirror_with_all_of_its_copies_opens() -> None:
    new = random.SystemRandom().randrange(1 << 40)
    ends = set()
    for seed in (*range(200), *range(new, new + 50)):
        try:
            ends.add(play(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert ends == {False, True}
