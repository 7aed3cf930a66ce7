import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.ceph import Cluster, cluster, missing
from vscsihba.handlers.stack import Document

Describe = Callable[..., Document]

_names = itertools.count()


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster, shared by all tests; a test that kills its storage daemon starts it again."""
    if lacking := missing():
        pytest.skip(lacking)
    with cluster(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture
def describe(ceph: Cluster) -> Describe:
    """Return a function that describes a disk on an image of its own, with other options where given."""
    name = f"image{next(_names)}"

    def document(**options: object) -> Document:
        given = {
            "pool": "rbd",
            "image": name,
            "size": 8 << 20,
            "conf": str(ceph.conf),
            "timeout": 5,
            **options,
        }
        return {"handler": "rbd", **{key: value for key, value in given.items() if value is not None}}

    return document
