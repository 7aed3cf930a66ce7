"""Sessions that cannot end: the commands that they wait for are ended, once, and only theirs."""

import msgspec
import pytest

from tests.daemon.test_exports import HOST, NAME, OTHER, document
from vscsihba.config.model import Document
from vscsihba.daemon.stuck_sessions import StuckSessions


class Sessions:
    """Sessions of a kernel, as a set of initiators that wait for their end."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self.logins = False
        self.asked = 0

    def ending(self, name: str) -> frozenset[str]:
        return frozenset(self.waiting) if name == NAME else frozenset()

    def logins_wait(self) -> bool:
        self.asked += 1
        return self.logins


def stuck(kernel: Sessions) -> tuple[StuckSessions, list[tuple[int, int]]]:
    ended: list[tuple[int, int]] = []
    return StuckSessions(lambda hba, lun: ended.append((hba, lun)), kernel), ended


def test_a_session_that_does_not_end_has_its_commands_ended_once(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Sessions()
    sessions, ended = stuck(kernel)
    whole = document(initiators=[{"name": HOST, "luns": [1]}, {"name": OTHER}])
    sessions.look(whole)
    kernel.waiting = {HOST}
    sessions.look(whole)
    assert ended == [], "it may end by itself"
    sessions.look(whole)
    assert ended == [(0, 4)], "the disk that this initiator sees"
    assert f"the session of {HOST} on {NAME} does not end" in caplog.text
    sessions.look(whole)
    assert ended == [(0, 4)], "once"
    kernel.waiting = set()
    sessions.look(whole)
    kernel.waiting = {OTHER}
    sessions.look(whole)
    sessions.look(whole)
    assert ended == [(0, 4), (0, 3), (0, 4)]


def test_a_login_that_waits_frees_the_disks_of_open_exports_only(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Sessions()
    sessions, ended = stuck(kernel)
    closed, opened = (
        document(name=f"{NAME}2"),
        document(open=True, initiators=[], luns=[{"lun": 0, "backstore": "a"}]),
    )
    both = msgspec.structs.replace(closed, exports=(*closed.exports, *opened.exports))
    for _ in range(3):
        sessions.look(both)
    assert ended == [], "no login waits"
    kernel.logins, kernel.asked = True, 0
    for _ in range(3):
        sessions.look(closed)
    assert (ended, kernel.asked) == ([], 0), "the kernel tells of listed initiators itself"
    for _ in range(3):
        sessions.look(both)
    assert ended == [(0, 3)]
    assert f"a session on {NAME} does not end" in caplog.text


def test_a_service_without_exports_looks_at_nothing() -> None:
    sessions, ended = stuck(Sessions())
    sessions.look(Document())
    assert ended == []
