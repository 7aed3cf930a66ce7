"""A session: one registered HBA, the commands that its caller has in hand, and their memory.

Knows what belongs to whom; what the calls return is decided in `vscsihba.vscsiapi.calls`.
"""

import atexit
import threading
from itertools import count

from vscsihba.errors import VscsihbaError
from vscsihba.hba import Management, Task, VirtualHba
from vscsihba.vscsiapi.buffers import Buffers
from vscsihba.vscsiapi.task import Code

_NUMBERS = count(1)
"""Of all sessions together: a structure of one that is closed never matches a command of the next."""


class Refusal(Exception):  # noqa: N818 - a return code on its way, caught in `returns_code`
    """A call cannot be meant.

    Args:
        code: What the call returns.
        text: What `last_error` returns.
    """

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(text)


class Session:
    """One HBA, entered.

    Args:
        hba: A new one.
        wait: Seconds that a get waits for a command; None for ever.

    Attributes:
        fd: Names the session, and can be polled.
        buffers: What its structures point to.
        lock: Held around every use of what follows and of `buffers`.
        open: What was handed out and not completed, by number.

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
        """Note that `event` is in the caller's hands, and return its number."""
        number = next(_NUMBERS) & 0xFFFFFFFF
        self.open[number] = event
        return number

    def held(self, number: int) -> Task | Management:
        """Return what the caller has in hand under `number`.

        Raises:
            Refusal: Nothing.
        """
        event = self.open.get(number)
        if event is None:
            raise Refusal(Code.NOT_OPEN, f"command {number} is not open")
        return event

    def close(self) -> None:
        """Detach and forget; commands that are open are refused. Twice is harmless.

        Raises:
            HostError: The kernel refused a step.
        """
        SESSIONS.pop(self.fd, None)
        self.open.clear()
        self.hba.close()


SESSIONS: dict[int, Session] = {}
"""The live ones, by descriptor."""


@atexit.register
def close_all() -> None:
    """Detach whatever a program leaves attached when it ends."""
    for session in tuple(SESSIONS.values()):
        try:
            session.close()
        except VscsihbaError:
            continue  # nobody is left to be told; the next session of that id clears it
