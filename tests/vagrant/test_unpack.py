import lzma
import os
from pathlib import Path

import pytest

from vagrant.runner.kernels import Kernel
from vagrant.runner.unpack import ELF_MAGIC, PVH_NOTE, unpack, unpacked

VMLINUX = ELF_MAGIC + bytes(1000) + PVH_NOTE + bytes(8)
BZIMAGE = b"MZ setup code" + lzma.compress(VMLINUX) + b"trailer"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    image = tmp_path / "vmlinuz-6.1.0-1-amd64"
    image.write_bytes(BZIMAGE)
    return Kernel("6.1.0-1-amd64", image)


def test_unpack_finds_the_kernel_inside() -> None:
    assert unpack(BZIMAGE) == VMLINUX


@pytest.mark.parametrize(
    "packed",
    [
        b"packed otherwise",
        b"MZ" + lzma.compress(VMLINUX)[:40] + bytes(100),
        b"MZ" + lzma.compress(b"no ELF" + PVH_NOTE),
        b"MZ" + lzma.compress(ELF_MAGIC + b"no PVH entry"),
    ],
)
def test_unpack_refuses_kernels_that_qemu_cannot_start(packed: bytes) -> None:
    assert unpack(packed) is None


def test_unpacked_is_kept(kernel: Kernel, tmp_path: Path) -> None:
    first = unpacked(kernel, tmp_path / "cache")
    assert first is not None
    assert first.read_bytes() == VMLINUX
    made = first.stat().st_mtime_ns
    again = unpacked(kernel, tmp_path / "cache")
    assert again == first
    assert first.stat().st_mtime_ns == made


def test_unpacked_follows_an_upgrade_of_the_kernel(kernel: Kernel, tmp_path: Path) -> None:
    old = unpacked(kernel, tmp_path / "cache")
    os.utime(kernel.image, (1, 1))
    new = unpacked(kernel, tmp_path / "cache")
    assert new != old
    assert list((tmp_path / "cache").iterdir()) == [new]


def test_unpacked_does_without_where_nothing_can_be_kept(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    assert unpacked(kernel, tmp_path / "cache") is None
