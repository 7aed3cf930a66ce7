"""A medium is replaced while the disk is closed or killed: it is refused or made equal, and never read."""

from pathlib import Path

import pytest

from tests.sim.faults import NoFaults
from tests.sim.histories import judge
from tests.sim.layers import LAYERS, OLDER, Medium
from tests.sim.media import Shelf
from tests.sim.runs import Run, make_template, run, send
from tests.sim.storage import Storage
from tests.sim.world import World

CASES = [
    (name, medium, kind) for name, layer in LAYERS.items() for medium in layer.media for kind in medium.kinds
]


def live(machine: Run, *, leave_open: bool = False) -> None:
    machine.live(send(machine.layer.script), NoFaults(), leave_open=leave_open)
    assert machine.opened
    assert not machine.failed


@pytest.mark.parametrize("ends", ["close", "kill", "power"])
@pytest.mark.parametrize(("name", "medium", "kind"), CASES, ids=str)
def test_a_medium_is_replaced_and_put_back(
    root: Path, name: str, medium: Medium, kind: str, ends: str
) -> None:
    layer = LAYERS[name]
    with run(layer, make_template(layer, root), root, 1) as machine:
        shelf = Shelf(machine)
        shelf.copy()
        live(machine, leave_open=ends != "close")
        if ends == "power":
            machine.history.cut_power()
            machine.world.cut_power()
        copy = shelf.copies[medium.name][0] if kind == OLDER else None
        shelf.exchange(medium, kind, copy)
        shelf.look(copy)
        shelf.change_places()
        judge(shelf)


def test_moved_files_are_what_a_power_cut_leaves(root: Path) -> None:
    world = World(root, 1)
    world.storage.put({str(root / "folder"): None, str(root / "folder/file"): b"content"})
    with world:
        with world.untouched():
            storage: Storage = world.storage
            tree = storage.tree_below(str(root / "folder"))
            assert tree == {"": None, "/file": b"content"}
            storage.move(str(root / "folder"), str(root / "aside"))
            storage.add(str(root / "folder"), tree)
            storage.discard(str(root / "aside"))
        world.cut_power()
        assert (root / "folder/file").read_bytes() == b"content"
        assert not (root / "aside").exists()
