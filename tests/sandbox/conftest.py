"""Fixtures of tests with a running sandbox: an ordinary user, and a check that nothing is left behind."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.polling import poll
from tests.sandbox.ordinary import PROGRAM, OrdinaryUser, folders, processes
from vscsihba.errors import SandboxError
from vscsihba.sandbox import kernels

MakeUser = Callable[[Sequence[str]], OrdinaryUser]


@pytest.fixture(scope="session")
def linux_uml() -> None:
    """User-Mode Linux on this machine."""
    try:
        kernels.choose()
    except SandboxError as error:
        pytest.skip(f"needs User-Mode Linux: {error}")


@pytest.fixture
def nothing_stays(linux_uml: None) -> Iterator[None]:
    """Fail a test that leaves a process or a folder."""
    before, running = folders(), processes()
    yield
    gone = poll(lambda: not processes().keys() - running.keys() and folders() <= before, limit=60)
    assert gone, (processes(), folders() - before)


@pytest.fixture(scope="session")
def homes() -> Iterator[Path]:
    """A folder for the home folders of users, which pytest's own keeps to root."""
    with tempfile.TemporaryDirectory(prefix="homes-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        (Path(name) / "cache").mkdir()
        (Path(name) / "cache").chmod(0o777)
        yield Path(name)


@pytest.fixture
def make_user(nothing_stays: None, homes: Path) -> MakeUser:
    """Create ordinary users whose programs are started by a wrapper."""

    def make(wrapper: Sequence[str] = ()) -> OrdinaryUser:
        user = OrdinaryUser(Path(tempfile.mkdtemp(dir=homes)), wrapper)
        if not user.can_read(PROGRAM):
            pytest.skip(f"needs a tree that other users can read: {Path(PROGRAM)}")
        return user

    return make


@pytest.fixture
def user(make_user: MakeUser) -> OrdinaryUser:
    """An ordinary user."""
    return make_user(())
