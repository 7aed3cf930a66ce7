"""Messages to a service manager."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vscsihba.daemon.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


def test_the_manager_hears_how_it_is(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready("2 HBAs")
    notifier.alive("3 HBAs")
    notifier.stopping()
    assert [manager.recv(100) for _ in range(3)] == [
        b"READY=1\nSTATUS=2 HBAs",
        b"WATCHDOG=1\nSTATUS=3 HBAs",
        b"STOPPING=1",
    ]


def test_an_at_sign_is_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0vscsihba-test-{os.getpid()}")
        listening.settimeout(60)
        Notifier({"NOTIFY_SOCKET": f"@vscsihba-test-{os.getpid()}"}).stopping()
        assert listening.recv(100) == b"STOPPING=1"


def test_without_a_manager_nothing_is_sent(tmp_path: Path) -> None:
    Notifier({}).ready("")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_signs_of_life_are_given_twice_as_often_as_asked(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environment).interval == seconds
