"""Files that are replaced or made as a whole: after a crash at any call, the old one or the new one.

They are what saved unit state, documents of the service and new media rely on.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sim.faults import DEATHS, FAULTS, Fault, OneFault
from tests.sim.world import World
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.handlers.cow import overlay_file
from vscsihba.handlers.cow.format import Header
from vscsihba.handlers.file import making as file_making
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata
from vscsihba.handlers.mirror.state import MirrorState, create_state
from vscsihba.handlers.shared.durable import replace_file

OLD, NEW = b"old" * 3000, b"new" * 3000


def replaced(root: Path) -> None:
    replace_file(root / "file", NEW)


def saved(root: Path) -> None:
    UnitState("unit", root / "units").save(NEW)


def made(root: Path) -> None:
    file_making.create(str(root / "file"), len(NEW))


def overlaid(root: Path) -> None:
    header = Header(uuid="u", size=1 << 20, cluster_size=4096, base="b", base_size=1 << 20, base_digest="d")
    overlay_file.create_overlay(str(root / "file"), header)


def mirrored(root: Path) -> None:
    legs = (LegEntry(uuid="l", state="in", event=1, identity="i"),)
    metadata = Metadata(uuid="u", event=1, session="s", size=1 << 20, region_size=65536, legs=legs)
    create_state(str(root / "file"), metadata)


def strike(
    root: Path, act: Callable[[Path], None], before: bytes | None, fault: Fault
) -> tuple[object, bool, str]:
    """Do something with one fault and cut the power; return what is there, and whether it was done."""
    world = World(root, fault.number)
    world.storage.put({} if before is None else {str(root / "file"): before})
    plan, done = OneFault(fault), []
    with world:

        def body() -> None:
            act(root)
            done.append(True)

        with world.faults(plan):
            world.start(body).wait()
        world.cut_power()
    path = root / "units" / "unit.json" if act is saved else root / "file"
    found = path.read_bytes() if path.exists() else None
    return found, bool(done), plan.struck


@pytest.mark.parametrize("act", [replaced, saved, made, overlaid, mirrored])
def test_done_is_done_whatever_the_power_cut_leaves(root: Path, act: Callable[[Path], None]) -> None:
    whole = set()
    for seed in range(30):
        found, done, _ = strike(root, act, OLD if act is replaced else None, Fault(1_000_000 + seed, "EIO"))
        assert done
        whole.add(found)
    assert len(whole) == 1
    assert whole.pop() not in (OLD, None, b"")


@pytest.mark.parametrize("act", [replaced, saved, made, overlaid, mirrored])
def test_a_fault_at_any_call_leaves_the_old_or_the_new(root: Path, act: Callable[[Path], None]) -> None:
    before = OLD if act is replaced else None
    (new,) = {strike(root, act, before, Fault(1_000_000, "EIO"))[0]}
    number, struck = 0, "something"
    while struck:
        for how in (*sorted({each for every in FAULTS.values() for each in every} - {"thread"}), *DEATHS):
            found, done, struck = strike(root, act, before, Fault(number, how))
            assert found == new if done and how not in DEATHS else found in (before, new, *_begun(act)), (
                f"{how}@{number}"
            )
        number += 1
    assert number > 4


def _begun(act: Callable[[Path], None]) -> list[bytes]:
    """Return the other contents that are right when making a file was cut short, and not acknowledged."""
    return [b"", bytes(len(NEW))] if act is made else []


def test_a_state_file_that_was_opened_is_there_after_a_power_cut_though_its_maker_was_killed(
    root: Path,
) -> None:
    path, opened = root / "file", list[int]()
    for number in range(60):
        with World(root, number, {}) as world:
            with world.faults(OneFault(Fault(number, "kill"))):
                maker = world.live(lambda: mirrored(root))
            with world.untouched():
                is_there = path.exists()
            if is_there:
                opened.append(number)
                world.live(lambda: MirrorState(str(path)).close())
            world.cut_power()
            assert path.exists() or not is_there
            assert is_there or maker.died
    assert opened[0] < 59, "the last kills strike nobody"
