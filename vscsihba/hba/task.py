"""One SCSI command that the caller answers, and one task management request.

A task knows its parts and its raw LUN, which takes the answer; it knows nothing of rings.
"""

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from vscsihba import scsi
from vscsihba.block import Buffer
from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.hba.answer import answer

_LENGTHS = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""Bytes of a CDB by the group code of its operation code (SPC-5 "Operation code")."""
_VARIABLE_LENGTH = 0x7F
_MAX_SENSE = 96


class Owner(Protocol):
    """A raw LUN, which takes the answers of its tasks."""

    number: int
    unit: scsi.LogicalUnit

    def complete(self, task: "Task", status: int, sense: bytes, data_in: int | None) -> None:
        """Answer `task`.

        Raises:
            TransportError: It is not open.
        """


class Task:
    """A SCSI command that waits for its answer, that is, for exactly one `complete`.

    Attributes:
        lun: Number of the LUN that it was sent to.
        tag: Identifies the command among the open ones of its LUN.
        cdb: The command descriptor block, in its own length.
        buffer: Data from the initiator, or space for data to it; do not use it after `complete`.
        aborted: The task management function that has aborted it (``ABORT TASK``, ...), None if none has.
            Complete it soon all the same, with any status: its buffer is in use until then.
        arrived: Time of its arrival, in seconds of CLOCK_MONOTONIC.
        done: It is completed.
    """

    __slots__ = ("_owner", "aborted", "arrived", "buffer", "cdb", "done", "lun", "tag")

    def __init__(self, owner: Owner, tag: int, cdb: bytes, buffer: Buffer) -> None:
        self._owner = owner
        self.lun = owner.number
        self.tag = tag
        self.cdb = cdb[: cdb_length(cdb)]
        self.buffer = buffer
        self.aborted: str | None = None
        self.arrived = monotonic()
        self.done = False

    def __repr__(self) -> str:
        return f"<Task lun={self.lun} tag={self.tag} {scsi.describe(self.cdb)[0]}>"

    def complete(self, status: int = 0, sense: bytes = b"", data_in: int | None = None) -> None:
        """Answer the command.

        Args:
            status: SAM status; 0 is GOOD.
            sense: Sense data of CHECK CONDITION, at most 96 bytes; if empty, ILLEGAL REQUEST, INVALID
                COMMAND OPERATION CODE is sent.
            data_in: Bytes at the head of `buffer` that the initiator gets; None for a command
                that returns no data.

        Raises:
            UsageError: An argument is not valid; the command stays open.
            TransportError: It was completed before, its HBA is closed, or its device is gone.
        """
        if status not in set(scsi.Status):
            raise UsageError(f"{status!r} is not a SCSI status")
        if sense and (status != scsi.Status.CHECK_CONDITION or len(sense) > _MAX_SENSE):
            raise UsageError(f"{len(sense)} bytes of sense data with status {status:#04x}")
        if data_in is not None and not self.done and not 0 <= data_in <= self.buffer.length:
            raise UsageError(f"{data_in} bytes of data-in from a buffer of {self.buffer.length}")
        if status == scsi.Status.CHECK_CONDITION and not sense:
            sense = UNKNOWN_COMMAND
        self._owner.complete(self, status, sense, data_in)

    def check_condition(
        self,
        key: scsi.SenseKey = scsi.SenseKey.ILLEGAL_REQUEST,
        asc: scsi.Asc = scsi.Asc.INVALID_COMMAND_OPERATION_CODE,
        *,
        information: int | None = None,
    ) -> None:
        """Refuse the command, with sense data in fixed format.

        Args:
            key: Sense key.
            asc: Additional sense code and qualifier.
            information: INFORMATION field, such as the LBA of a lost block.

        Raises:
            TransportError: As `complete`.
        """
        self.complete(scsi.Status.CHECK_CONDITION, scsi.Sense(key, asc, information).encode(), 0)

    def answer_as(self, unit: scsi.LogicalUnit | None = None, medium: Handler | None = None) -> None:
        """Have a logical unit answer the command, if your program does not care about it.

        Args:
            unit: The logical unit; by default the LUN's own, a plain disk of the LUN's size. Only one
                thread at a time may use a unit.
            medium: An open handler that stores the data. Without one, a flush succeeds, since there is
                nothing to flush, and commands that transfer data fail with MEDIUM ERROR.

        Raises:
            TransportError: As `complete`.
        """
        answer(self, unit or self._owner.unit, medium)

    def finish(self) -> None:
        """Release the buffer, which the caller must not use any more; for the raw LUN only."""
        self.done = True
        for view in self.buffer.views:
            with suppress(BufferError):  # an object made of it still exists
                view.release()
        self.buffer = Buffer()


@dataclass(frozen=True, slots=True, eq=False)
class Management:
    """A task management request: the initiator has aborted commands.

    Attributes:
        lun: Number of the LUN.
        function: SAM's name, such as ``ABORT TASK`` or ``LOGICAL UNIT RESET``.
        tasks: The open commands that it has aborted; `Task.aborted` is set.
    """

    lun: int
    function: str
    tasks: tuple[Task, ...]


Event = Task | Management | Exception
"""An event for the caller: a command, a task management request, or the error that has ended a LUN."""

UNKNOWN_COMMAND = scsi.Sense(scsi.SenseKey.ILLEGAL_REQUEST, scsi.Asc.INVALID_COMMAND_OPERATION_CODE).encode()


def cdb_length(cdb: bytes) -> int:
    """Return the length of the CDB within `cdb`, which a ring rounds up to a multiple of 8 bytes.

    For vendor specific operation codes, whose length no standard defines, it is the length of `cdb`.
    """
    if row := scsi.lookup(cdb):
        return row.length
    if cdb[0] == _VARIABLE_LENGTH and len(cdb) > 7:
        return min(len(cdb), 8 + cdb[7])
    return min(len(cdb), _LENGTHS.get(cdb[0] >> 5, len(cdb)))
