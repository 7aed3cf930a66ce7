"""A session: one registered HBA, its open commands, and their memory.

Knows which commands and buffers belong to it; `vscsihba.vscsiapi.calls` decides what the calls return.
"""

import atexit
import threading
from itertools import count

from vscsihba.errors import VscsihbaError
from vscsihba.hba import Management, Task, VirtualHba
from vscsihba.vscsiapi.buffers import Buffers
from vscsihba.vscsiapi.task import Code

_NUMBERS = count(1)
"""Command numbers, unique over all sessions: a structure of a closed session matches no later command."""


class Refusal(Exception):  # noqa: N818 - a return code on its way, caught in `returns_code`
    """A call is refused.

    Args:
        code: Return code of the call.
        text: Text for `last_error`.
    """

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(text)


class Session:
    """One HBA, entered.

    Args:
        hba: A new HBA, not entered.
        wait: Seconds that a get waits for a command; None without a limit.

    Attributes:
        fd: Identifies the session, and can be polled.
        buffers: Memory of its structures.
        lock: Held around every use of `open` and `buffers`.
        open: Commands and requests that are not completed, by number.

    Raises:
        VscsihbaError: As entering `hba`.
    """

    def __init__(self, hba: VirtualHba, wait: float | None) -> None:
        self.hba = hba.__enter__()
        self.fd = hba.fileno()
        self.wait = wait
        self.buffers = Buffers()
        self.lock = threading.Lock()
        self.open: dict[int, Task | Management] = {}
        SESSIONS[self.fd] = self

    def admit(self, event: Task | Management) -> int:
        """Add an open command or request, and return its number."""
        number = next(_NUMBERS) & 0xFFFFFFFF
        self.open[number] = event
        return number

    def held(self, number: int) -> Task | Management:
        """Return the open command or request with a number.

        Raises:
            Refusal: There is none.
        """
        event = self.open.get(number)
        if event is None:
            raise Refusal(Code.NOT_OPEN, f"command {number} is not open")
        return event

    def close(self) -> None:
        """Detach; open commands are refused. A second call has no effect.

        Raises:
            HostError: The kernel refused a step.
        """
        SESSIONS.pop(self.fd, None)
        self.open.clear()
        self.hba.close()


SESSIONS: dict[int, Session] = {}
"""The registered sessions, by descriptor."""


@atexit.register
def close_all() -> None:
    """Detach all sessions at the end of the program."""
    for session in tuple(SESSIONS.values()):
        try:
            session.close()
        except VscsihbaError:
            continue  # the program ends; the next session of that id removes the rest
