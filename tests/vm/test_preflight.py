"""Media that a document may not name because they are in use, on a real kernel."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import MakeImage, Serve
from tests.vm.shell import run, settle
from tests.vm.target import CONFIGFS
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.daemon.preflight import check_machine
from vscsihba.errors import ConfigError

Refusal = Callable[..., str]


@pytest.fixture
def refusal(scratch: Path) -> Refusal:
    """Return the objections to a document with these backstores."""

    def refuse(*stacks: object) -> str:
        document = shown(scratch, *stacks)
        with pytest.raises(ConfigError) as caught:
            check_machine(document, Document())
        return str(caught.value)

    return refuse


def shown(base: Path, *stacks: object) -> Document:
    names = "abc"[: len(stacks)]
    luns = [{"lun": number, "backstore": name} for number, name in enumerate(names)]
    backstores = dict(zip(names, stacks, strict=True))
    return read({"version": 1, "backstores": backstores, "hbas": [{"id": 0, "luns": luns}]}, base)


@contextlib.contextmanager
def loop(image: Path) -> Iterator[Path]:
    device = Path(run("losetup", "--find", "--show", "--partscan", image).strip())
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def test_mounted_device_is_refused_by_any_name(scratch: Path, image: MakeImage, refusal: Refusal) -> None:
    with loop(image()) as device:
        check_machine(shown(scratch, str(device)), Document())
        run("mkfs.ext4", "-q", device)
        link = scratch / "link"
        link.symlink_to(device)
        folder = scratch / "mounted"
        folder.mkdir()
        run("mount", device, folder)
        try:
            for name in (device, link):
                assert f"{name} is in use: {device} is mounted on {folder}" in refusal(str(name))
        finally:
            run("umount", folder)


def test_partition_is_a_part_of_its_disk(image: MakeImage, refusal: Refusal) -> None:
    with loop(image()) as device:
        run("parted", "--script", device, "mklabel", "gpt", "mkpart", "part", "1MiB", "20MiB")
        settle()
        part = f"{device}p1"
        said = refusal(str(device), {"handler": "stats", "next": part})
        assert f"{part} is a part of {device} at $.backstores.a.path" in said


def test_file_behind_a_loop_device_is_refused(image: MakeImage, refusal: Refusal) -> None:
    path = image()
    with loop(path) as device:
        assert f"{path} is in use: it is behind {device}" in refusal(str(path))
        assert "is in use" in refusal({"handler": "file", "path": str(path), "read_only": True})


def test_swap_file_is_refused(scratch: Path, refusal: Refusal) -> None:
    path = scratch / "swap file"
    run("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=4")
    path.chmod(0o600)
    run("mkswap", path)
    run("swapon", path)
    try:
        assert f"{path} is in use: it is used as swap" in refusal(str(path))
    finally:
        run("swapoff", path)


def test_disk_of_our_own_is_refused(scratch: Path, image: MakeImage, serve: Serve, refusal: Refusal) -> None:
    path = image()
    target = serve([path], hba=4)
    disk = target.luns[0].node
    assert f"{disk} is LUN 0 of HBA 4 itself" in refusal(str(disk))
    assert f"{path} is in use: another program has it open as a disk" in refusal(str(path))
    assert target.stop() == 0
    check_machine(shown(scratch, str(path)), Document())


def test_file_of_another_target_is_refused(image: MakeImage, refusal: Refusal) -> None:
    path = image()
    run("modprobe", "target_core_file")
    backstore = CONFIGFS / "core/fileio_77/theirs"
    backstore.mkdir(parents=True)
    try:
        (backstore / "control").write_text(f"fd_dev_name={path},fd_dev_size={64 << 20}")
        (backstore / "udev_path").write_text(f"{path}\n")
        (backstore / "enable").write_text("1\n")
        assert "it is a backstore of another target (fileio_77/theirs)" in refusal(str(path))
    finally:
        backstore.rmdir()
        backstore.parent.rmdir()


def test_size_is_measured_against_the_real_file_system(scratch: Path, refusal: Refusal) -> None:
    stack = {"handler": "file", "path": "new.img", "size": "1EiB"}
    assert "$.backstores.a.size: 1EiB is more than the size of the file system of" in refusal(stack)
    assert not (scratch / "new.img").exists()
