"""What the structure has no field for: long CDBs, sense data, requests, disks; and data as bytes.

None of it is needed to follow the original's way; like the calls, nothing here raises for what is
in a structure.
"""

from vscsihba.hba import Management, Task
from vscsihba.vscsiapi.calls import data_of
from vscsihba.vscsiapi.return_codes import returns_code, session_of
from vscsihba.vscsiapi.session import Refusal, Session
from vscsihba.vscsiapi.task import SENSE_IN_BUFFER, Code, user_scsitap_task

_MAX_SENSE = 96
_CHECK_CONDITION = 2


def get_cdb(task: user_scsitap_task) -> bytes:
    """Return the whole CDB of an open command, of any length; empty if it is not open."""
    event = _held(task)
    return event.cdb if isinstance(event, Task) else bytes(6 if event else 0)


def get_management(task: user_scsitap_task) -> tuple[str, tuple[int, ...]] | None:
    """Return what an open task management request is about; None if it is none.

    Returns:
        SAM's name, such as ``ABORT TASK``, and the numbers of the commands in hand that it ended: they
        are still to be completed, soon, with any status.
    """
    event = _held(task)
    if not isinstance(event, Management):
        return None
    held = session_of(task).open.items()
    return event.function, tuple(number for number, other in tuple(held) if other in event.tasks)


def get_device(task: user_scsitap_task, lun: int) -> str | None:
    """Return the disk of a LUN, such as ``/dev/sda``; None while Linux has made none of it."""
    try:
        found = session_of(task).hba.luns.get(lun)
    except Refusal:
        return None
    device = found.device if found else None
    return str(device) if device else None


def get_data(task: user_scsitap_task) -> bytes:
    """Return a copy of the `request_bufflen` bytes in `request_buffer`; empty if they are not ours."""
    try:
        session = session_of(task)
        with session.lock:
            return bytes(data_of(task, session))
    except Refusal:
        return b""


def set_data(task: user_scsitap_task, data: bytes | bytearray | memoryview) -> int:
    """Put data-in into `request_buffer`, at most `request_bufflen` bytes, and set `request_bufflen`.

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
    """Put sense data (96 bytes at most) into `request_buffer`, to be sent with CHECK CONDITION.

    Sets `status` and `request_bufflen`, which is the original's way of sending it.

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
    """Return what the caller has in hand, None if that is nothing."""
    try:
        return session_of(task).open.get(task.cmd_number)
    except Refusal:
        return None
