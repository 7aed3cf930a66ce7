"""mirror of two files beside md raid1 over two loop devices."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.vm.peers import Contestant, run
from tests.bench.vm.stack_peers.group import SIZE, Group, Peer, hole, loop, served

_SUPERBLOCK: Final = 4 << 20
"""Bytes that md takes for itself, at most."""


@contextmanager
def _ours(folder: Path, number: int) -> Iterator[Contestant]:
    """A new mirror, whose second leg is made equal by the first writes: all sectors are written first."""
    legs = [str(hole(folder / name)) for name in ("a.img", "b.img")]
    document = {"handler": "mirror", "path": str(folder / "state"), "create": True, "legs": legs}
    with served(json.dumps(document), folder, number) as contestant:
        yield contestant


@contextmanager
def _md(bitmap: str, folder: Path, number: int) -> Iterator[Contestant]:
    """md raid1, made without a first resync; with a bitmap it notes regions as our mirror does."""
    device = Path(f"/dev/md{number}")
    with ExitStack() as undo:
        legs = [undo.enter_context(loop(hole(folder / name, SIZE + _SUPERBLOCK))) for name in ("a", "b")]
        words = ("--level=1", "--raid-devices=2", "--assume-clean", "--run", f"--bitmap={bitmap}")
        run("mdadm", "--create", device, *words, *legs)
        try:
            yield Contestant("md raid1" if bitmap == "none" else "md raid1, bitmap", device)
        finally:
            run("mdadm", "--stop", device)


_MD: Final = (("mdadm", "losetup"), ("loop", "raid1"))
GROUPS: Final = (
    Group(
        "mirror",
        (
            Peer("vscsihba", _ours),
            Peer("md raid1", partial(_md, "none"), *_MD),
            Peer("md raid1, bitmap", partial(_md, "internal"), *_MD),
        ),
    ),
)
