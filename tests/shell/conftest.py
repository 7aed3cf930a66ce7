from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService, serving
from vscsihba.daemon.calls import Daemon
from vscsihba.shell.context import ShellContext
from vscsihba.shell.line import split
from vscsihba.shell.session import Session

Run = Callable[[str], str]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FakeService]:
    with serving(tmp_path) as (fake, _):
        yield fake


@pytest.fixture
def session(service: FakeService, tmp_path: Path) -> Session:
    return Session(ShellContext(Daemon(tmp_path / "control.sock")))


@pytest.fixture
def run(session: Session, capsys: pytest.CaptureFixture[str]) -> Run:
    """Carry out a line and return what it printed."""

    def carry_out(line: str) -> str:
        session.run(split(line))
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return carry_out


@pytest.fixture
def disk(run: Run) -> None:
    """A backstore d1 that LUN 0 of HBA 0 shows, and a backstore d2 that nothing shows."""
    run("/backstores/memory create name=d1 size=1MiB")
    run("/backstores/memory create d2 size=1MiB")
    run("/hbas create")
    run("/hbas/hba0 create d1")
