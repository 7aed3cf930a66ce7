"""The commands of a capture, sent again one after the other, and their answers compared.

Knows commands and answers; `Target` sends them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from vscsihba import scsi
from vscsihba.capture.saved import SavedCommand
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.sg.cdb import length_of

_HARMLESS: Final = frozenset(
    {
        0x00,  # TEST UNIT READY
        0x03,  # REQUEST SENSE
        0x08,  # READ(6)
        0x12,  # INQUIRY
        0x1A,  # MODE SENSE(6)
        0x25,  # READ CAPACITY(10)
        0x28,  # READ(10)
        0x2F,  # VERIFY(10)
        0x34,  # PRE-FETCH(10)
        0x35,  # SYNCHRONIZE CACHE(10)
        0x3C,  # READ BUFFER(10)
        0x4D,  # LOG SENSE
        0x5A,  # MODE SENSE(10)
        0x5E,  # PERSISTENT RESERVE IN
        0x88,  # READ(16)
        0x8F,  # VERIFY(16)
        0x90,  # PRE-FETCH(16)
        0x91,  # SYNCHRONIZE CACHE(16)
        0x9E,  # READ CAPACITY(16), GET LBA STATUS
        0xA0,  # REPORT LUNS
        0xA3,  # REPORT ...
        0xA8,  # READ(12)
        0xAF,  # VERIFY(12)
    }
)
"""Operation codes that change nothing on a disk."""

_OF_THE_UNIT: Final = frozenset({0x03, 0x12, 0x4D, 0xA3})
"""Operation codes whose data names the unit or counts its commands: it is not compared."""

_NOT_TAKEN: Final = frozenset({scsi.Status.BUSY, scsi.Status.TASK_SET_FULL, scsi.Status.TASK_ABORTED})
"""Answers after which the initiator sends a command again, or has given it up."""

_ATTEMPTS: Final = 8
"""Attempts of a command that is answered with a unit attention, each of which is told once."""


class Reply(NamedTuple):
    """The answer of a target.

    Attributes:
        status: SAM status.
        sense: Sense data.
        data: Data for the initiator.
    """

    status: int
    sense: bytes
    data: bytes


class Target(Protocol):
    """The device that commands are sent to."""

    def send(self, cdb: bytes, data: bytes, length: int) -> Reply:
        """Send a command, and return its answer.

        Args:
            cdb: The CDB.
            data: Data for the target.
            length: Bytes of the buffer for data from the target.

        Raises:
            OSError: It has no answer.
        """


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that is not the captured one.

    Attributes:
        number: Number of the command in the file.
        command: The command as text.
        text: The difference.
    """

    number: int
    command: str
    text: str


@dataclass(slots=True)
class Outcome:
    """The result of a replay.

    Attributes:
        sent: Commands that were sent.
        skipped: Commands that were not, since the initiator repeated them or had given them up.
        differences: Answers that are not the captured ones.
    """

    sent: int = 0
    skipped: int = 0
    differences: list[Difference] = field(default_factory=list)


def changes_data(command: SavedCommand) -> bool:
    """Return whether a command may change a device."""
    return command.cdb[0] not in _HARMLESS


def of_lun(commands: Iterable[SavedCommand], place: tuple[str, int] | None) -> Iterator[SavedCommand]:
    """Yield the commands of one LUN.

    Args:
        commands: The commands.
        place: Name of the HBA and number of the LUN; None: the only one of the capture.

    Raises:
        UsageError: The capture has several LUNs, and none is named.
    """
    only = place
    for command in commands:
        found = command.hba, command.lun
        if place is None and only is not None and only != found:
            names = ", ".join(f"{hba}/lun{lun}" for hba, lun in (only, found))
            raise UsageError(f"the capture has commands of several LUNs: {names}", cure="choose one by --lun")
        only = only or found
        if found == only:
            yield command


def replay(
    commands: Iterable[SavedCommand],
    target: Target,
    *,
    timed: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Send commands in the order of their arrival, each after the end of the one before.

    Args:
        commands: The commands of one LUN.
        target: The device.
        timed: Wait as long between two commands as their initiator did, if the target is quick enough.
        sleep: Waits.

    Raises:
        UsageError: The capture lacks data that has to be sent.
        HostError: A command has no answer.
    """
    outcome = Outcome()
    began: tuple[int, float] | None = None
    for command in commands:
        if not _is_wanted(command):
            outcome.skipped += 1
            continue
        if timed:
            now = time.monotonic()
            began = began or (command.nanoseconds, now)
            sleep(max(0.0, (command.nanoseconds - began[0]) / 1e9 - (now - began[1])))
        reply = _send(command, target)
        outcome.sent += 1
        if (text := _difference(command, reply)) is not None:
            outcome.differences.append(Difference(command.number, described(command), text))
    return outcome


def described(command: SavedCommand) -> str:
    """Return a command as text."""
    return " ".join(filter(None, scsi.describe(_cdb(command))))


def check_complete(command: SavedCommand) -> None:
    """Check that the capture has all data that has to be sent.

    Raises:
        UsageError: It has not.
    """
    if command.is_write and len(command.data) < command.length and _is_wanted(command):
        raise UsageError(
            f"the capture has {len(command.data)} of the {command.length} bytes of command"
            f" {command.number}, {described(command)}",
            cure='capture with "--snaplen all"',
        )


def _is_wanted(command: SavedCommand) -> bool:
    return command.status not in _NOT_TAKEN and _sense_key(command.sense) != scsi.SenseKey.UNIT_ATTENTION


def _send(command: SavedCommand, target: Target) -> Reply:
    check_complete(command)
    data = bytes(command.data) if command.is_write else b""
    length = command.length if command.is_read else 0
    for _ in range(_ATTEMPTS):
        try:
            reply = target.send(_cdb(command), data, length)
        except OSError as error:
            raise HostError(
                f"command {command.number}, {described(command)}, got no answer: {error.strerror or error}"
            ) from error
        if _sense_key(reply.sense) != scsi.SenseKey.UNIT_ATTENTION:
            break
    return reply


def _difference(command: SavedCommand, reply: Reply) -> str | None:
    """Return how an answer differs from the captured one, None if it does not."""
    if reply.status != command.status:
        was, now = scsi.status_name(command.status or 0), scsi.status_name(reply.status)
        return f"status {_with(now, reply.sense)} instead of {_with(was, command.sense)}"
    if _codes(reply.sense) != _codes(command.sense):
        return f"{scsi.describe_sense(reply.sense)} instead of {scsi.describe_sense(command.sense)}"
    if not command.is_read or command.cdb[0] in _OF_THE_UNIT:
        return None
    length = command.length - command.residual
    if len(reply.data) != length:
        return f"{len(reply.data)} bytes of data instead of {length}"
    kept = bytes(command.data)
    if reply.data[: len(kept)] != kept:
        at = next(at for at, (one, two) in enumerate(zip(reply.data, kept, strict=False)) if one != two)
        return f"other data from byte {at} on"
    return None


def _with(status: str, sense: bytes) -> str:
    words = scsi.describe_sense(sense)
    return f"{status} ({words})" if words else status


def _sense_key(sense: bytes) -> int:
    return _codes(sense)[0]


def _codes(sense: bytes) -> tuple[int, int, int]:
    """Return sense key, ASC and ASCQ; zeroes if there is no sense data."""
    if len(sense) < 4:
        return 0, 0, 0
    if sense[0] & 0x7E == 0x72:
        return sense[1] & 0xF, sense[2], sense[3]
    code, qualifier = sense[12:14] if len(sense) >= 14 else (0, 0)
    return sense[2] & 0xF, code, qualifier


def _cdb(command: SavedCommand) -> bytes:
    row = scsi.lookup(command.cdb)
    return command.cdb[: row.length if row else length_of(command.cdb)]
