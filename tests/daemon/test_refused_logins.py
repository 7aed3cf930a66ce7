"""Refused logins are logged: a line for all since the last look."""

import pytest

from tests.daemon.test_exports import NAME, OTHER, document
from vscsihba.configfs import Refusals
from vscsihba.daemon.refused_logins import RefusedLogins


def test_refused_logins_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    found = {NAME: Refusals(7, OTHER, "192.0.2.9")}
    logins = RefusedLogins(found.__getitem__)
    logins.look(document())
    assert caplog.messages == [], "an earlier service may have logged them"
    found[NAME] = Refusals(10, OTHER, "192.0.2.9")
    logins.look(document())
    logins.look(document())
    assert caplog.messages == [f"export {NAME}: 3 logins refused, the last one of {OTHER} from 192.0.2.9"]
    found[NAME] = Refusals(11)
    logins.look(document())
    found[NAME] = Refusals(1)  # of a target that was made anew
    logins.look(document())
    assert caplog.messages[1:] == [f"export {NAME}: 1 login refused"] * 2
    found[other := f"{NAME}2"] = Refusals(1)  # of an export that was added
    logins.look(document(name=other))
    assert caplog.messages[-1] == f"export {other}: 1 login refused"
