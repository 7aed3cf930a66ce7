"""LUKS containers are made, and their keys change: after a fault at any call the data can be unlocked."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.sim.exhaustive import Counting, sample
from tests.sim.faults import DEATHS, FAULTS, OneFault, Plan
from tests.sim.initiator import FAILURES
from tests.sim.layers import LUKS2_PAYLOAD
from tests.sim.world import World
from vscsihba.errors import HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.encrypt import admin, crypto, luks, luks1, luks2_json
from vscsihba.handlers.encrypt.crypto import Pbkdf2
from vscsihba.handlers.stack import build

OLD, OTHER, NEW = b"old", b"other", b"new"
KDF: Final = Pbkdf2(b"salt" * 8, "sha256", 1000)
Tree = dict[str, bytes | None]


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


def run(
    root: Path, tree: Tree, plan: Plan, act: Callable[[Handler], None], *, power: bool, seed: int = 0
) -> bool:
    """Do something with a disk, and end the process or the machine; return whether it was done."""
    done: list[bool] = []

    def body() -> None:
        stack = build(document(root))
        try:
            act(stack.open())
            done.append(True)
        except FAILURES:
            pass

    world = World(root, seed, tree)
    with world:
        with world.faults(plan):
            life = world.start(body)
            life.wait()
        if power or world.power_is_cut:
            world.cut_power()
    assert life.error is None, life.error
    return bool(done)


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
    counting = Counting(lambda: None)
    assert run(root, tree, counting, lambda disk: act(disk, version), power=False)
    assert opening(root) == when_done
    points = sample(counting.calls, FAULTS, 1)
    assert len(points) > 50
    for point in points:
        plan = OneFault(point.fault)
        ends_by_power = point.end == "power"
        done = run(
            root,
            tree,
            plan,
            lambda disk: act(disk, version),
            power=ends_by_power,
            seed=point.fault.number,
        )
        found = opening(root)
        if done and point.fault.how not in DEATHS:
            assert found == when_done, point
        else:
            assert surely <= found <= perhaps, f"{point}: {plan.struck}: {found}"
