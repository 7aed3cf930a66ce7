from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.ceph import Cluster
from vscsihba.handlers.rbd.library import rbd
from vscsihba.handlers.stack import Document
from vscsihba.testing.disk_model import DiskModel, as_tests

KIB = 1024


class OnCeph(DiskModel):
    ceph: ClassVar[Cluster]
    options: ClassVar[dict[str, object]] = {}

    def document(self, directory: Path) -> Document:
        image = {"pool": "rbd", "image": directory.name, "conf": str(self.ceph.conf)}
        return {"handler": "rbd", "size": self.size, "create": True, **image, **self.options}


class SmallObjects(OnCeph):
    """An image with objects of 64 KiB: most requests touch several."""

    def prepare(self, directory: Path) -> bytearray:
        with self.ceph.pool() as pool:
            rbd().RBD().create(pool, directory.name, self.size, order=16)
        return bytearray(self.size)


class Clone(OnCeph):
    """A clone of a snapshot with data: what was discarded must not show the data of the parent."""

    def prepare(self, directory: Path) -> bytearray:
        data = bytes(1 + at % 250 for at in range(250)) * (self.size // 250 + 1)
        with self.ceph.pool() as pool:
            rbd().RBD().create(pool, f"{directory.name}-parent", self.size - 64 * KIB, order=16)
            with rbd().Image(pool, f"{directory.name}-parent") as parent:
                parent.write(data[: self.size - 64 * KIB], 0)
                parent.create_snap("s")
                parent.protect_snap("s")
            rbd().RBD().clone(pool, f"{directory.name}-parent", "s", pool, directory.name, order=16)
            with rbd().Image(pool, directory.name) as clone:
                clone.resize(self.size)
        return bytearray(data[: self.size - 64 * KIB]) + bytearray(64 * KIB)


class WithoutMap(OnCeph):
    """An image without an object map."""

    options: ClassVar[dict[str, object]] = {"features": ["layering", "exclusive-lock"]}


class Shared(OnCeph):
    """An image without a lock."""

    options: ClassVar[dict[str, object]] = {"lock": "none", "features": ["layering"], "block_size": 4096}


TestPlain: Any = as_tests(OnCeph, examples=10)
TestSmallObjects: Any = as_tests(SmallObjects, examples=8)
TestClone: Any = as_tests(Clone, examples=8)
TestWithoutMap: Any = as_tests(WithoutMap, examples=3)
TestShared: Any = as_tests(Shared, examples=3)


@pytest.fixture(autouse=True, scope="module")
def _use(ceph: Cluster) -> None:
    OnCeph.ceph = ceph
