"""A mirror under fio verify while its legs die, come back and are exchanged."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.polling import wait_until
from tests.vm.conftest import MakeImage, Serve
from tests.vm.fio import Fio
from tests.vm.shell import run

SIZE = 48 << 20
VSCSIHBA = str(Path(sys.executable).parent / "vscsihba")


def leg(image: Path) -> dict[str, object]:
    """A leg that fails as long as a file with the name of its image and .dead is there."""
    verbs = ["read", "write", "flush", "unmap", "write_zeroes", "extents"]
    return {"handler": "error", "verbs": verbs, "trigger": f"{image}.dead", "next": str(image)}


def mirror(action: str, *words: str) -> Any:
    return json.loads(run(VSCSIHBA, "mirror", action, "hba0/lun0", *words, "--json"))


def data(image: Path) -> bytes:
    """The disk's data on a leg, without the mark behind them."""
    return image.read_bytes()[:SIZE]


def standings() -> list[str]:
    return [leg["standing"] for leg in mirror("status")["legs"]]


def equal() -> bool:
    status = mirror("status")
    return status["resync"] is None and all(leg["standing"] == "whole" for leg in status["legs"])


@pytest.mark.long
def test_a_leg_dies_and_is_made_equal_under_fio(image: MakeImage, serve: Serve, scratch: Path) -> None:
    a, b, c = (image(f"{name}.img", SIZE) for name in "abc")
    stack = {"handler": "mirror", "path": f"{scratch}/mirror.state", "create": True, "legs": [leg(a), leg(b)]}
    target = serve([json.dumps(stack)])
    lun = target.luns[0]
    wait_until(equal, "two equal legs")
    fio = Fio([lun])
    dead = Path(f"{b}.dead")
    dead.touch()
    wait_until(lambda: standings() == ["whole", "gone"], "the mirror to drop the leg")
    told = mirror("status")["legs"][1]["error"]
    dead.unlink()
    mirror("retry")
    wait_until(equal, "the leg to be made equal")
    assert mirror("add-leg", str(c)) == {"number": 2}
    wait_until(equal, "the new leg to be made equal")
    assert mirror("remove-leg", "0") == {"removed": 0}
    assert standings() == ["whole", "whole"]
    longest = fio.finish()
    print(f"the longest wait of an I/O: {longest:.2f} s; the leg was dropped for: {told}")
    assert target.stop() == 0
    assert data(b) == data(c)
    assert data(a) != data(c)


@pytest.mark.long
def test_a_leg_is_cut_short_under_inline_writes(image: MakeImage, serve: Serve, scratch: Path) -> None:
    a, b = (image(f"{name}.img", SIZE) for name in "ab")
    stack = {"handler": "mirror", "path": f"{scratch}/mirror.state", "create": True, "retry": 2}
    target = serve([json.dumps({**stack, "legs": [str(a), str(b)]})])
    wait_until(equal, "two equal legs")
    before = b.read_bytes()[: 4 << 20]
    fio = Fio([target.luns[0]])
    wait_until(lambda: b.read_bytes()[: 4 << 20] != before, "writes on the leg", pause=0.5)
    os.truncate(b, 0)
    wait_until(lambda: "is dropped" in target.errors(), "the mirror to drop the leg")
    assert standings()[0] == "whole"
    for size in (0, SIZE):  # zeroes, without what was written last: it counts as a new leg
        os.truncate(b, size)
    wait_until(equal, "the leg to be made equal", limit=600)
    longest = fio.finish()
    print(f"the longest wait of an I/O: {longest:.2f} s")
    assert target.stop() == 0
    assert data(a) == data(b)
