"""The original's three calls for commands: get, receive, complete.

Each takes a `user_scsitap_task` with any content, and returns a `Code`: no content makes a call raise, or
access memory outside the session's buffers. Knows how structures and tasks correspond.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from vscsihba import scsi
from vscsihba.hba import Management, Task
from vscsihba.vscsiapi.return_codes import returns_code
from vscsihba.vscsiapi.session import Refusal, Session
from vscsihba.vscsiapi.task import (
    SCSI_DATA_NONE,
    SCSI_DATA_READ,
    SCSI_DATA_WRITE,
    SENSE_IN_BUFFER,
    TASK_COMMAND,
    TASK_MANAGEMENT,
    Code,
    user_scsitap_task,
)

_MAX_SENSE = 96
_USUAL_SENSE = 14
"""Bytes of sense data if `request_bufflen` is 0: the length that the original used."""


@returns_code
def get_scsi_task(task: user_scsitap_task, session: Session) -> int:
    """Fill `task` in with the next command.

    Several commands may be open at the same time, each with a structure of its own.

    Returns:
        OK with a command; NOTHING if none is queued; BAD_SESSION after the HBA is detached;
        BAD_TASK, BAD_BUFFER, FAILED (a LUN cannot be served or linked; the others can).
    """
    with session.lock:
        if not task.request_buffer:
            session.buffers.give(task)
        if session.buffers.memory(task) is None:
            raise Refusal(Code.BAD_BUFFER, "request_buffer is not a buffer of this session")
    event = session.hba.next_event(session.wait)
    if event is None and session.hba.detached:
        session.close()
        raise Refusal(Code.BAD_SESSION, f"session {task.session} is detached")
    if event is None:
        return Code.NOTHING
    with session.lock:
        task.cmd_number = session.admit(event)
        _fill(task, event)
        if len(session.buffers.memory(task) or b"") < task.request_bufflen:
            session.buffers.give(task, task.request_bufflen)
    return Code.OK


def _fill(task: user_scsitap_task, event: Task | Management) -> None:
    """Copy a command into a structure; a task management request looks like a TEST UNIT READY."""
    cdb, length, kind = bytes(6), 0, TASK_MANAGEMENT
    if isinstance(event, Task):
        cdb, length, kind = event.cdb, event.buffer.length, TASK_COMMAND
    task.type, task.direction = kind, _direction(cdb) if length else SCSI_DATA_NONE
    task.lun = event.lun
    task.cdblen = min(len(cdb), 255)
    task.cdb[:] = list(cdb[:16].ljust(16, b"\0"))
    task.request_bufflen = length
    task.status = 0


def _direction(cdb: bytes) -> int:
    """Return the direction of the data according to the CDB; the ring does not have it."""
    row = scsi.lookup(cdb)
    return SCSI_DATA_WRITE if row is not None and row.data is scsi.Data.OUT else SCSI_DATA_READ


@returns_code
def receive_scsi_data(task: user_scsitap_task, session: Session) -> int:
    """Copy the data of the initiator into `request_buffer`: `request_bufflen` bytes.

    Returns:
        OK, NOTHING if `direction` is not `SCSI_DATA_WRITE`; BAD_TASK, BAD_SESSION, NOT_OPEN, BAD_BUFFER.
    """
    with session.lock:
        event = session.held(task.cmd_number)
        if task.direction != SCSI_DATA_WRITE or not isinstance(event, Task):
            return Code.NOTHING
        data = data_of(task, session)
        with _in_reach(task):
            data[: event.buffer.length] = event.buffer.gather(0, min(len(data), event.buffer.length))
    return Code.OK


@returns_code
def complete_scsi_task(task: user_scsitap_task, session: Session) -> int:
    """Complete the command with `status`.

    With GOOD and `SCSI_DATA_READ`, the initiator gets the first `request_bufflen` bytes of
    `request_buffer`, which may be fewer than it asked for. With `SENSE_IN_BUFFER` set in `status`, they
    are sense data. CHECK CONDITION without it means ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.

    Returns:
        OK; BAD_TASK, BAD_SESSION, NOT_OPEN, BAD_BUFFER, BAD_STATUS, FAILED (the ring is gone). After
        BAD_BUFFER and BAD_STATUS the command is still open: complete it again.
    """
    with session.lock:
        event = session.held(task.cmd_number)
        if isinstance(event, Task):
            status, sense, data = _result(task, session, event)
            session.open.pop(task.cmd_number, None)  # if completing fails, it fails for good
            event.complete(status, sense, data)
        session.open.pop(task.cmd_number, None)
    return Code.OK


def _result(task: user_scsitap_task, session: Session, command: Task) -> tuple[int, bytes, int | None]:
    """Return status, sense data and length of data-in, after copying the data.

    Raises:
        Refusal: `status` or the buffer is not valid.
    """
    status = task.status & ~SENSE_IN_BUFFER
    with_sense = bool(task.status & SENSE_IN_BUFFER)
    if status not in set(scsi.Status) or (with_sense and status != scsi.Status.CHECK_CONDITION):
        raise Refusal(Code.BAD_STATUS, f"status {task.status:#x} is not a SCSI status")
    if with_sense:
        sense = bytes(data_of(task, session, task.request_bufflen or _USUAL_SENSE)[:_MAX_SENSE])
        return status, sense, 0
    if task.direction != SCSI_DATA_READ or status != scsi.Status.GOOD:
        return status, b"", None
    with _in_reach(task):
        return status, b"", command.buffer.scatter(data_of(task, session))


@contextmanager
def _in_reach(task: user_scsitap_task) -> Iterator[None]:
    """Turn the error of a buffer that another thread has just released into a `Refusal`.

    Raises:
        Refusal: The buffer was released: another thread detaches the HBA.
    """
    try:
        yield
    except ValueError as error:  # a view of it was released
        raise Refusal(Code.NOT_OPEN, f"command {task.cmd_number} was refused in the meantime") from error


def data_of(task: user_scsitap_task, session: Session, length: int | None = None) -> memoryview:
    """Return `length` bytes (default: `request_bufflen`) of the buffer of `task`.

    Raises:
        Refusal: They are not all inside a buffer of this session.
    """
    length = task.request_bufflen if length is None else length
    memory = session.buffers.memory(task)
    if length and (memory is None or not 0 < length <= len(memory)):
        raise Refusal(
            Code.BAD_BUFFER, f"{length} bytes at request_buffer are not inside a buffer of this session"
        )
    return memoryview(b"") if memory is None else memory[:length]
