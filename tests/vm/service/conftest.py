"""One service for all tests of a file: a start of it takes an emulated machine long."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.daemon import Service, running_service


@pytest.fixture(scope="module")
def standing(kernel: None) -> Iterator[Service]:
    """A service that lives as long as the file's tests."""
    base = os.environ.get("VSCSIHBA_SCRATCH")
    with tempfile.TemporaryDirectory(dir=base) as folder, running_service(Path(folder)) as made:
        yield made


@pytest.fixture
def service(standing: Service, scratch: Path) -> Iterator[Service]:
    """That service, without HBAs at first; those of the test go after it."""
    said_before = len(standing.errors())
    yield standing
    standing.ask("clear", force=True)
    print(standing.errors()[said_before:])


@pytest.fixture
def own_service(scratch: Path) -> Iterator[Service]:
    """A service for one test, which may kill it; not beside `service`."""
    with running_service(scratch) as made:
        yield made
