"""Sessions that cannot end: the commands that they wait for are ended, once, and only theirs."""

from tests.daemon.test_exports import HOST, NAME, OTHER, document
from vscsihba.config.model import Document
from vscsihba.daemon.stuck_sessions import StuckSessions


class Sessions:
    """Sessions of a kernel, as a set of initiators that wait for their end."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self.logins = False

    def ending(self, name: str) -> frozenset[str]:
        assert name == NAME
        return frozenset(self.waiting)

    def logins_wait(self) -> bool:
        return self.logins


def stuck(kernel: Sessions) -> tuple[StuckSessions, list[tuple[int, int]]]:
    ended: list[tuple[int, int]] = []
    return StuckSessions(lambda hba, lun: ended.append((hba, lun)), kernel), ended


def test_a_session_that_does_not_end_has_its_commands_ended_once() -> None:
    kernel = Sessions()
    sessions, ended = stuck(kernel)
    whole = document(initiators=[{"name": HOST, "luns": [1]}, {"name": OTHER}])
    sessions.look(whole)
    kernel.waiting = {HOST}
    sessions.look(whole)
    assert ended == [], "it may end by itself"
    sessions.look(whole)
    assert ended == [(0, 4)], "the disk that this initiator sees"
    sessions.look(whole)
    assert ended == [(0, 4)], "once"
    kernel.waiting = set()
    sessions.look(whole)
    kernel.waiting = {OTHER}
    sessions.look(whole)
    sessions.look(whole)
    assert ended == [(0, 4), (0, 3), (0, 4)]


def test_a_login_that_waits_frees_the_disks_of_open_exports_only() -> None:
    kernel = Sessions()
    kernel.logins = True
    sessions, ended = stuck(kernel)
    for _ in range(3):
        sessions.look(document())
    assert ended == []
    for _ in range(3):
        sessions.look(document(open=True, initiators=[]))
    assert ended == [(0, 3), (0, 4)]


def test_a_service_without_exports_looks_at_nothing() -> None:
    sessions, ended = stuck(Sessions())
    sessions.look(Document())
    assert ended == []
