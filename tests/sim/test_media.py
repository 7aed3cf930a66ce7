"""A medium is replaced while the disk is closed or killed: it is refused or made equal, and never read."""

from pathlib import Path
from random import Random

import pytest

from tests.sim.faults import NoFaults
from tests.sim.histories import change_media, judge
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


class Restless(Random):
    """Luck by which media never stay as they are."""

    def random(self) -> float:
        return 0.99


def test_no_other_medium_is_replaced_until_one_that_was_put_back_has_caught_up(root: Path) -> None:
    layer = LAYERS["mirror"]
    state = next(medium for medium in layer.media if not medium.is_a_leg)
    with run(layer, make_template(layer, root), root, 1) as machine:
        shelf = Shelf(machine)
        shelf.copy()
        live(machine)
        copy = shelf.copies[state.name][0]
        shelf.exchange(state, OLDER, copy)
        shelf.look(copy)  # the legs are newer from now on than the state file that is put back
        shelf.change_places()
        shelf.throw_away()
        change_media(shelf, Restless())
        assert shelf.medium is None
        live(machine)
        change_media(shelf, Restless())
        assert shelf.medium is not None


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
