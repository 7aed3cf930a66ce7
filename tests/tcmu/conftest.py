"""Fixtures: a loopback with a server that the test drives, and a factory of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.tcmu.server import Server
from vscsihba.loopback import Loopback

MakeServer = Callable[..., Server]


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Make servers of loopbacks; the arguments are those of `Loopback`."""
    with ExitStack() as stack:

        def make(**arguments: Any) -> Server:
            return Server(stack.enter_context(closing(Loopback(**arguments))))

        yield make


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """A server of a small ring (31 commands a lap) and 64 blocks of data."""
    return make_server(ring_size=3968, blocks=64)
