"""encrypt beside dm-crypt, nbdkit's luks filter and qemu-nbd: containers made by cryptsetup, AES-256-XTS.

nbdkit and QEMU know LUKS1 only, whose sectors have 512 bytes. The encrypt handler makes LUKS2 with sectors of
4 KiB.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.vm.peers import Contestant, nbd, run
from tests.bench.vm.stack_peers.group import SIZE, Group, Peer, dm_device, hole, loop, served

_HEADER: Final = 16 << 20
_FORMATS: Final = {
    1: ("--type", "luks1", "--iter-time", "10"),
    2: ("--type", "luks2", "--sector-size", "4096", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
}
_CIPHER: Final = ("--cipher", "aes-xts-plain64", "--key-size", "512")


def _container(folder: Path, luks: int) -> tuple[Path, Path]:
    """Make a container; return it and the file with its secret."""
    secret, disk = folder / "secret", hole(folder / "disk.luks", _HEADER + SIZE)
    secret.touch(mode=0o600)
    secret.write_text("correct horse battery staple")
    run("cryptsetup", "luksFormat", "--batch-mode", *_FORMATS[luks], *_CIPHER, "--key-file", secret, disk)
    return disk, secret


def _ours(luks: int, folder: Path, number: int) -> AbstractContextManager[Contestant]:
    disk, secret = _container(folder, luks)
    return served(f"encrypt:key_file={secret}|{disk}", folder, number)


@contextmanager
def _dm_crypt(luks: int, folder: Path, number: int) -> Iterator[Contestant]:
    """dm-crypt as cryptsetup sets it up, over loop."""
    disk, secret = _container(folder, luks)
    name = f"bench{number}"
    with loop(disk) as device:
        run("cryptsetup", "open", "--key-file", secret, device, name)
        try:
            yield Contestant("dm-crypt", dm_device(name))
        finally:
            run("cryptsetup", "close", name)


def _nbdkit(folder: Path, number: int) -> AbstractContextManager[Contestant]:
    disk, secret = _container(folder, 1)
    socket = folder / "socket"
    words = ("nbdkit", "-f", "-U", socket, "--filter=luks", "file", disk, f"passphrase=+{secret}")
    return nbd("nbdkit luks", socket, number, *words)


def _qemu_nbd(folder: Path, number: int) -> AbstractContextManager[Contestant]:
    disk, secret = _container(folder, 1)
    socket = folder / "socket"
    options = f"driver=luks,key-secret=key,file.driver=file,file.filename={disk}"
    words = ("qemu-nbd", "-t", "-k", socket, "--cache=writeback", "--object", f"secret,id=key,file={secret}")
    return nbd("qemu-nbd luks", socket, number, *words, "--image-opts", options)


def _kernel(luks: int) -> tuple[Peer, Peer]:
    ours: Callable[[Path, int], AbstractContextManager[Contestant]] = partial(_ours, luks)
    crypt = Peer(
        "dm-crypt",
        partial(_dm_crypt, luks),
        ("cryptsetup", "dmsetup", "losetup"),
        ("loop", "dm-crypt", "xts"),
    )
    return Peer("vscsihba", ours, ("cryptsetup",)), crypt


GROUPS: Final = (
    Group(
        "encrypt, LUKS1",
        (
            *_kernel(1),
            Peer("nbdkit luks", _nbdkit, ("nbdkit", "nbd-client", "cryptsetup"), ("nbd",)),
            Peer("qemu-nbd luks", _qemu_nbd, ("qemu-nbd", "nbd-client", "cryptsetup"), ("nbd",)),
        ),
    ),
    Group("encrypt, LUKS2 with 4 KiB sectors", _kernel(2)),
)
