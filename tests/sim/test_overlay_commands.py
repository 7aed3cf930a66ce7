"""Commands on an overlay that no disk uses: after a fault at any call, nothing of the disk is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sim.acts import Tree, each_fault
from tests.sim.layers import LAYERS
from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cow import admin
from vscsihba.handlers.shared.vectored import read_bytes
from vscsihba.handlers.stack import build

LAYER = LAYERS["cow"]
CLUSTER = 4096
CHANGED = {0: b"a" * CLUSTER, 5: b"b" * CLUSTER, 60: bytes(CLUSTER)}
Names = tuple[bytes, str]


def base(root: Path) -> Handler:
    return build({"handler": "file", "path": str(root / "base.img")}).open()


def commit(root: Path) -> None:
    admin.commit(str(root / "over.cow"), base(root))


def discard(root: Path) -> None:
    admin.discard(str(root / "over.cow"))


def renew(root: Path) -> None:
    admin.renew_uuid(str(root / "over.cow"))


def prepared(root: Path) -> Tree:
    """Return an overlay that has changed some clusters, and its base."""
    LAYER.make(root)
    with build(LAYER.document(root)) as disk:
        for cluster, data in CHANGED.items():
            if any(data):
                disk.write(cluster * CLUSTER, [memoryview(data)])
            else:
                disk.write_zeroes(cluster * CLUSTER, CLUSTER, may_unmap=True)
    return {str(path): path.read_bytes() for path in root.glob("*.*") if path.is_file()}


def content(root: Path) -> Names:
    """Return the content of the disk and its name; a commit that was interrupted is done again first."""
    if admin.status(str(root / "over.cow")).committing:
        with pytest.raises(HostError, match="a commit into its base was interrupted"):
            build(LAYER.document(root)).open()
        with build({"handler": "file", "path": str(root / "base.img")}) as below:
            admin.commit(str(root / "over.cow"), below)
    with build(LAYER.document(root)) as disk:
        return read_bytes(disk, 0, disk.geometry.size), disk.identity


@pytest.mark.parametrize("command", [commit, discard, renew])
def test_a_command_leaves_the_disk_or_what_it_was_to_become(
    root: Path, command: Callable[[Path], None]
) -> None:
    tree = prepared(root)
    before, name = content(root)
    plain = tree[str(root / "base.img")]
    struck = []
    for result in each_fault(root, tree, lambda: command(root)):
        struck.append(result.struck)
        found, now = content(root)
        if command is discard:
            assert found in ((plain,) if result.is_done else (plain, before)), result
        else:
            assert found == before, result
        if command is renew:
            assert now != name or not result.is_done, result
        else:
            assert now == name, result
    assert len(struck) > 30
