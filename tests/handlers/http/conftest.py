"""Fixtures: servers, with nothing in the environment that leads past them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.handlers.http.servers import Nginx, Scripted

MakeServer = Callable[[bytes], Scripted]

CONTENT = random.Random(15).randbytes(1 << 20)  # any bytes, the same in every run


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take proxies out of the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def shared_nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Return an nginx that no test stops."""
    nginx = Nginx(tmp_path_factory.mktemp("nginx"))
    nginx.start()
    yield nginx
    nginx.kill()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Return an nginx of the test's own."""
    nginx = Nginx(tmp_path / "nginx")
    nginx.start()
    yield nginx
    nginx.kill()


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Start servers that do as the test says."""
    servers: list[Scripted] = []

    def make(content: bytes = CONTENT) -> Scripted:
        servers.append(Scripted(content))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: MakeServer) -> Scripted:
    """Start a server that does as the test says."""
    return make_server(CONTENT)
