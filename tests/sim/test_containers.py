"""LUKS containers are made, and their keys change: after a fault at any call the data can be unlocked."""

from collections.abc import Callable
from pathlib import Path
from typing import Final
from unittest import mock

import pytest

from tests.sim.acts import Tree, each_fault
from tests.sim.layers import LUKS2_PAYLOAD
from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt import admin, crypto, luks, luks1, luks2_json
from vscsihba.handlers.encrypt.crypto import Pbkdf2
from vscsihba.handlers.stack import build

OLD, OTHER, NEW = b"old", b"other", b"new"
KDF: Final = Pbkdf2(b"salt" * 8, "sha256", 1000)


def make(disk: Handler, version: int) -> None:
    luks.format_container(disk, 2 if version == 2 else 1, OLD, KDF, sector_size=512)


def add(disk: Handler, _version: int) -> None:
    admin.add_key(disk, OLD, NEW, KDF)


def remove(disk: Handler, _version: int) -> None:
    admin.remove_key(disk, 1)


def renew(disk: Handler, _version: int) -> None:
    header = luks.find(disk)
    assert header is not None
    luks.replace_key(disk, header, luks.new_key(header, OLD, KDF))


ACTS: Final[dict[Callable[[Handler, int], None], tuple[set[bytes], set[bytes], set[bytes]]]] = {
    make: ({OLD}, set[bytes](), {OLD}),
    add: ({OLD, OTHER, NEW}, {OLD, OTHER}, {OLD, OTHER, NEW}),
    remove: ({OLD}, {OLD}, {OLD, OTHER}),
    renew: ({OLD}, set[bytes](), {OLD, OTHER}),
}
"""Secrets that open the container when it is done; if it is not, those that surely do and those that may.

A new volume key destroys the one before first: if it is interrupted, nothing may open the container."""


def document(root: Path) -> dict[str, object]:
    return {"handler": "file", "path": str(root / "disk.img")}


def opening(root: Path) -> set[bytes]:
    """Return the secrets that open the container, none if it cannot be used."""
    with build(document(root)) as disk:
        try:
            header = luks.find(disk)
        except HostError:
            return set()
        return {secret for secret in (OLD, OTHER, NEW) if header and header.unlock(disk, secret)}


def prepared(root: Path, version: int, act: Callable[[Handler, int], None]) -> Tree:
    """Return the disk before: with a container of two keys, or of zeroes."""
    path = root / "disk.img"
    path.write_bytes(bytes((LUKS2_PAYLOAD if version == 2 else 2 << 20) + 4096))
    if act is not make:
        with build(document(root)) as disk:
            make(disk, version)
            admin.add_key(disk, OLD, OTHER, KDF)
    return {str(path): path.read_bytes()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("act", ACTS)
def test_a_fault_at_any_call_leaves_the_data_to_be_unlocked(
    root: Path, act: Callable[[Handler, int], None], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(luks2_json, "PAYLOAD", LUKS2_PAYLOAD)
    for module in (crypto, luks1, luks2_json):
        monkeypatch.setattr(module, "STRIPES", 64)  # 4000 of them take most of the time
    when_done, surely, perhaps = ACTS[act]
    tree = prepared(root, version, act)
    struck = []
    for result in each_fault(root, tree, lambda: act(build(document(root)).open(), version)):
        struck.append(result.struck)
        found = opening(root)
        if result.is_done:
            assert found == when_done, result
        else:
            assert surely <= found <= perhaps, f"{result}: {found}"
    assert len(struck) > 50


def test_a_new_container_overwrites_what_was_there(root: Path) -> None:
    """A hole might leave the stripes of an earlier key on the medium."""
    (root / "disk.img").write_bytes(bytes((2 << 20) + 4096))
    with build(document(root)) as disk, mock.patch.object(disk, "write_zeroes") as zeroes:
        make(disk, 1)
    zeroes.assert_called_once_with(0, 2 << 20, may_unmap=False)
