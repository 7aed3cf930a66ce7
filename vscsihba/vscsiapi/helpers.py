"""Helpers for long CDBs, sense data, task management, disks and bytes: the structure has no fields for them.

A program for the original needs none of them. Like the calls, they do not raise for any structure.
"""

from vscsihba.hba import Management, Task
from vscsihba.vscsiapi.calls import data_of
from vscsihba.vscsiapi.return_codes import returns_code, session_of
from vscsihba.vscsiapi.session import Refusal, Session
from vscsihba.vscsiapi.task import SENSE_IN_BUFFER, Code, user_scsitap_task

_MAX_SENSE = 96
_CHECK_CONDITION = 2


def get_cdb(task: user_scsitap_task) -> bytes:
    """Return the complete CDB of an open command; empty if it is not open."""
    event = _held(task)
    return event.cdb if isinstance(event, Task) else bytes(6 if event else 0)


def get_management(task: user_scsitap_task) -> tuple[str, tuple[int, ...]] | None:
    """Return an open task management request; None if `task` is not one.

    Returns:
        SAM's name, such as ``ABORT TASK``, and the numbers of the open commands that it has aborted:
        complete them soon, with any status.
    """
    event = _held(task)
    if not isinstance(event, Management):
        return None
    held = session_of(task).open.items()
    return event.function, tuple(number for number, other in tuple(held) if other in event.tasks)


def get_device(task: user_scsitap_task, lun: int) -> str | None:
    """Return the disk of a LUN, such as ``/dev/sda``; None while Linux has none."""
    try:
        entry = session_of(task).hba.luns.get(lun)
    except Refusal:
        return None
    device = entry.device if entry else None
    return str(device) if device else None


def get_data(task: user_scsitap_task) -> bytes:
    """Return a copy of the `request_bufflen` bytes in `request_buffer`; empty if they are not valid."""
    try:
        session = session_of(task)
        with session.lock:
            return bytes(data_of(task, session))
    except Refusal:
        return b""


def set_data(task: user_scsitap_task, data: bytes | bytearray | memoryview) -> int:
    """Copy data-in into `request_buffer`, at most `request_bufflen` bytes, and set `request_bufflen`.

    Returns:
        OK; BAD_TASK, BAD_SESSION, BAD_BUFFER.
    """

    @returns_code
    def put(task: user_scsitap_task, session: Session) -> int:
        with session.lock:
            room = data_of(task, session)
            length = min(len(room), len(data))
            room[:length] = memoryview(data)[:length]
            task.request_bufflen = length
        return Code.OK

    return put(task)


def set_sense(task: user_scsitap_task, sense: bytes) -> int:
    """Copy sense data (96 bytes at most) into `request_buffer`, to be sent with CHECK CONDITION.

    Sets `status` and `request_bufflen` as well, as the original expects them.

    Returns:
        OK; BAD_TASK, BAD_SESSION, BAD_BUFFER.
    """

    @returns_code
    def put(task: user_scsitap_task, session: Session) -> int:
        with session.lock:
            kept = sense[:_MAX_SENSE]
            data_of(task, session, len(kept))[:] = kept
            task.request_bufflen = len(kept)
            task.status = SENSE_IN_BUFFER | _CHECK_CONDITION
        return Code.OK

    return put(task)


def _held(task: user_scsitap_task) -> Task | Management | None:
    """Return the open command or request of a structure, None if there is none."""
    try:
        return session_of(task).open.get(task.cmd_number)
    except Refusal:
        return None
