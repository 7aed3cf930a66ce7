"""Return codes of the calls: `returns_code` finds the session of a structure and turns exceptions into codes.

No exception of this package leaves a call. Knows sessions, not the calls.
"""

import threading
from collections.abc import Callable
from functools import wraps

from vscsihba.errors import VscsihbaError
from vscsihba.vscsiapi.session import SESSIONS, Refusal, Session
from vscsihba.vscsiapi.task import Code, user_scsitap_task

_last = threading.local()

Call = Callable[[user_scsitap_task], int]


def last_error() -> str:
    """Return the message of this thread's last failed call; empty if none has failed."""
    return str(getattr(_last, "error", ""))


def note_error(text: str) -> None:
    """Set the text that `last_error` returns in this thread."""
    _last.error = text


def returns_code(call: Callable[[user_scsitap_task, Session], int]) -> Call:
    """Decorate a call: find the session of its structure, and turn exceptions into return codes."""

    @wraps(call)
    def guarded(task: user_scsitap_task) -> int:
        try:
            return call(task, session_of(task))
        except Refusal as refusal:
            note_error(str(refusal))
            return refusal.code
        except VscsihbaError as error:
            note_error(str(error))
            return Code.FAILED

    return guarded


def session_of(task: user_scsitap_task) -> Session:
    """Return the session of a structure.

    Raises:
        Refusal: It is not a structure, or its session is not registered.
    """
    if not isinstance(task, user_scsitap_task):
        raise Refusal(Code.BAD_TASK, f"{type(task).__name__} is not a user_scsitap_task")
    session = SESSIONS.get(task.session)
    if session is None:
        raise Refusal(Code.BAD_SESSION, f"session {task.session} is not registered")
    return session
