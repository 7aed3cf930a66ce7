"""Parts for the tests of an HBA: CDBs, ports that scan as a kernel does, and a caller on a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vscsihba.errors import HostError, TransportError
from vscsihba.hba import LoopbackPort, Task, VirtualHba
from vscsihba.loopback import Answer

TEST_UNIT_READY = bytes(6)
INQUIRY = bytes((0x12, 0, 0, 0, 96, 0))
READ_CAPACITY = bytes((0x25, *bytes(9)))
SYNCHRONIZE_CACHE = bytes((0x35, *bytes(9)))
READ = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
WRITE = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))
VENDOR = bytes((0xC0, *range(1, 10)))

CHECK_CONDITION, TASK_ABORTED = 2, 0x40
ABORT_TASK, LUN_RESET = 1, 5


class AskingPort(LoopbackPort):
    """A port that sends commands while it links and unlinks, and waits for the answers, as the kernel does.

    Attributes:
        answers: The answers, by the opcode of the command.
        refuses: Linking fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[int, Answer] = {}
        self.refuses = False
        self.closed = False

    def link(self, lun: int) -> None:
        if self.refuses:
            raise HostError("the port refuses")
        self.ask(lun, INQUIRY, 96)

    def unlink(self, lun: int, *, served: bool) -> None:
        if served:
            self.ask(lun, SYNCHRONIZE_CACHE)

    def close(self) -> None:
        self.closed = True

    def ask(self, lun: int, cdb: bytes, data_in: int = 0) -> None:
        self.answers[cdb[0]] = self.run(lun, cdb, data_in=data_in)


@contextmanager
def serving(hba: VirtualHba, how: Callable[[Task], None] = lambda task: task.answer_as()) -> Iterator[None]:
    """Answer every task with `how` on a thread of its own; inside, the test is the initiator."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            for task in hba.tasks():
                how(task)
        except (TransportError, HostError) as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        hba.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert not failures


def key(answer: Answer) -> tuple[int, int]:
    """Return sense key and additional sense code of fixed format sense data."""
    return answer.sense[2] & 0xF, answer.sense[12] << 8 | answer.sense[13]
