"""cache as large as the disk, beside dm-cache over loop and nbdkit's cache filter.

All of them keep blocks in memory and have the disk below in memory too, so that the numbers show the cost of
the cache itself. dm-cache has blocks of 64 KiB and its default policy, which copies a block only after
several requests for it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.vm.peers import Contestant, nbd
from tests.bench.vm.stack_peers.group import SIZE, Group, Peer, hole, image, loop, mapped, sectors, served

_METADATA: Final = 8 << 20
_SHORT: Final = {"write-back": "writeback", "write-through": "writethrough"}


def _ours(mode: str, folder: Path, number: int) -> AbstractContextManager[Contestant]:
    return served(f"cache:size={SIZE};mode={mode}|{image(folder / 'disk.img')}", folder, number)


@contextmanager
def _dm_cache(mode: str, folder: Path, number: int) -> Iterator[Contestant]:
    with ExitStack() as undo:
        disk = undo.enter_context(loop(image(folder / "disk.img")))
        fast = undo.enter_context(loop(hole(folder / "fast")))
        metadata = undo.enter_context(loop(hole(folder / "metadata", _METADATA)))
        table = f"0 {sectors(disk)} cache {metadata} {fast} {disk} 128 1 {_SHORT[mode]} smq 0"
        yield Contestant("dm-cache", undo.enter_context(mapped(f"bench{number}", table)))


def _nbdkit(mode: str, folder: Path, number: int) -> AbstractContextManager[Contestant]:
    """nbdkit keeps the cache in TMPDIR."""
    socket = folder / "socket"
    options = (f"cache={_SHORT[mode]}", "cache-on-read=true")
    words = ("nbdkit", "-f", "-U", socket, "--filter=cache", "file", image(folder / "disk.img"), *options)
    return nbd("nbdkit cache", socket, number, "env", f"TMPDIR={folder}", *words)


def _group(mode: str) -> Group:
    return Group(
        f"cache, {mode}",
        (
            Peer("vscsihba", partial(_ours, mode)),
            Peer(
                "dm-cache",
                partial(_dm_cache, mode),
                ("dmsetup", "losetup"),
                ("loop", "dm-cache", "dm-cache-smq"),
            ),
            Peer("nbdkit cache", partial(_nbdkit, mode), ("nbdkit", "nbd-client"), ("nbd",)),
        ),
    )


GROUPS: Final = tuple(_group(mode) for mode in _SHORT)
