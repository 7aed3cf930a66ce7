"""The file handler on a block device: a loop device, where this machine lets us have one."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vscsihba.errors import InUseError
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

SIZE = 1 << 20


def attach(image: Path) -> str:
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    return done.stdout.strip()


def detach(device: str) -> None:
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    image = tmp_path / "a.img"
    image.write_bytes(b"abcd" * (SIZE // 4))
    device = attach(image)
    yield device
    detach(device)


class DeviceModel(DiskModel):
    resizes = False

    def prepare(self, directory: Path) -> bytearray:
        (directory / "a.img").write_bytes(bytes(self.size))
        self.device = attach(directory / "a.img")
        return bytearray(self.size)

    def document(self, directory: Path) -> Document:
        return self.device

    def teardown(self) -> None:
        if self.stack is not None:
            self.stack.close()
            self.stack = None
            detach(self.device)
        super().teardown()


class DirectDeviceModel(DeviceModel):
    def document(self, directory: Path) -> Document:
        return {"handler": "file", "path": self.device, "direct": True}


TestDevice = as_tests(DeviceModel)
TestDeviceDirect = as_tests(DirectDeviceModel, examples=10)


def test_takes_its_shape_from_the_device(device: str) -> None:
    with build(device) as disk:
        assert disk.geometry.size == SIZE
        assert disk.geometry.block_size == 512
        assert disk.capabilities.unmap
        assert disk.capabilities.unmap_granularity > 0
        assert not disk.capabilities.extents


def test_is_held_exclusively(device: str) -> None:
    with build(device), pytest.raises(InUseError, match="in use"):
        build(device).open()
    with build(device):
        pass


def test_unmap_keeps_what_does_not_fill_a_block(device: str) -> None:
    with build(device) as disk:
        disk.unmap(511, 64 * KIB)
        assert read(disk, 508, 4) == b"abcd"
        assert not any(read(disk, 512, 64 * KIB - 512))


def test_zeroes_that_do_not_fill_a_block(device: str) -> None:
    with build(device) as disk:
        disk.write_zeroes(3, 1000, may_unmap=True, fua=True)
        assert read(disk, 0, 4) == b"abc\0"
        assert read(disk, 1000, 8) == b"\0\0\0dabcd"
        write(disk, 0, b"x", fua=True)
        disk.flush()


def test_takes_the_new_size_of_a_device_and_no_other(device: str, tmp_path: Path) -> None:
    with build(device) as disk:
        with pytest.raises(OSError, match="another size"):
            disk.resize(2 * SIZE)
        with (tmp_path / "a.img").open("r+b") as image:
            image.truncate(2 * SIZE)
        subprocess.run(["losetup", "--set-capacity", device], check=True)
        disk.resize(2 * SIZE)
        assert not any(read(disk, 2 * SIZE - 512, 512))


def test_identity_is_not_the_kernels_name(device: str, tmp_path: Path) -> None:
    with build(device) as disk:
        first = disk.identity
    assert first.startswith("block:")
    other = tmp_path / "link"
    other.symlink_to(device)
    with build(str(other)) as disk:
        assert disk.identity == first
    again = attach(tmp_path / "a.img")
    try:
        with build(again) as disk:
            assert disk.identity == first
    finally:
        detach(again)
