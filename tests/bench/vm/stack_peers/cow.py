"""cow beside dm-snapshot over loop, nbdkit's cow filter, and a qcow2 image in qemu-nbd.

Each has an overlay in a file of the same tmpfs as its base. dm-snapshot has the chunks that LVM gives it
(4 KiB), the others clusters of 64 KiB, which is the default of all three.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.bench.vm.peers import Contestant, nbd, run
from tests.bench.vm.stack_peers.group import SIZE, Group, Peer, hole, image, loop, mapped, sectors, served
from tests.bench.vm.workload import Workload

_STORE: Final = SIZE + (16 << 20)
"""Bytes of dm-snapshot's store: every chunk, and the list of them."""
_QUARTER: Final = SIZE // 4


def _ours(folder: Path, number: int) -> AbstractContextManager[Contestant]:
    stack = f"cow:{folder / 'over.cow'};create=true|{image(folder / 'base.img')}"
    return served(stack, folder, number)


@contextmanager
def _dm_snapshot(folder: Path, number: int) -> Iterator[Contestant]:
    with ExitStack() as undo:
        base = undo.enter_context(loop(image(folder / "base.img"), "--read-only"))
        store = undo.enter_context(loop(hole(folder / "store", _STORE)))
        table = f"0 {sectors(base)} snapshot {base} {store} P 8"
        yield Contestant("dm-snapshot", undo.enter_context(mapped(f"bench{number}", table)))


def _nbdkit(folder: Path, number: int) -> AbstractContextManager[Contestant]:
    """nbdkit keeps the overlay in TMPDIR, while it runs."""
    socket = folder / "socket"
    words = ("nbdkit", "-f", "-U", socket, "--filter=cow", "file", image(folder / "base.img"))
    return nbd("nbdkit cow", socket, number, "env", f"TMPDIR={folder}", *words)


def _qemu_nbd(folder: Path, number: int) -> AbstractContextManager[Contestant]:
    base, overlay, socket = image(folder / "base.img"), folder / "over.qcow2", folder / "socket"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay)
    words = ("qemu-nbd", "-t", "-f", "qcow2", "--cache=writeback", "-k", socket, overlay)
    return nbd("qemu-nbd qcow2", socket, number, *words)


_PEERS: Final = (
    Peer("vscsihba", _ours),
    Peer("dm-snapshot", _dm_snapshot, ("dmsetup", "losetup"), ("loop", "dm-snapshot")),
    Peer("nbdkit cow", _nbdkit, ("nbdkit", "nbd-client"), ("nbd",)),
    Peer("qemu-nbd qcow2", _qemu_nbd, ("qemu-nbd", "qemu-img", "nbd-client"), ("nbd",)),
)


def _once(name: str, rw: str, block: str, depth: int, start: int, size: int, *more: str) -> Workload:
    """Return a workload that uses a part of the disk, each block of it once."""
    words = (f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", f"--offset={start}", f"--size={size}")
    return Workload(name, (*words, *more), once=True)


_STRIDE: Final = ("--zonemode=strided", "--zonesize=4k", "--zonerange=64k")
"""One block of each cluster."""
_NEW: Final = (
    _once("4 KiB read of the base, depth 32", "read", "4k", 32, 0, SIZE),
    _once("128 KiB read of the base, depth 8", "read", "128k", 8, 0, SIZE),
    _once("4 KiB first write, depth 1", "write", "4k", 1, 0, _QUARTER, *_STRIDE),
    _once("4 KiB first write, depth 32", "write", "4k", 32, _QUARTER, _QUARTER, *_STRIDE),
    _once("128 KiB first write, depth 8", "write", "128k", 8, 2 * _QUARTER, 2 * _QUARTER),
)
GROUPS: Final = (Group("cow", _PEERS), Group("cow, new overlay", _PEERS, _NEW, anew=True))
