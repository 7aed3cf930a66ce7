"""Disks on a web server: a file system on one, and the server killed and started again."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.handlers.http.servers import Nginx
from tests.vm.conftest import MakeImage, Serve
from tests.vm.shell import checksum, mounted, run
from tests.vm.target import Lun

MiB = 1 << 20
FILE = 24 * MiB


@pytest.fixture
def nginx(scratch: Path) -> Iterator[Nginx]:
    """Start an nginx with its files on the scratch disk."""
    server = Nginx(scratch / "nginx")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def somewhere(scratch: Path) -> Path:
    """Return a folder to mount on."""
    return scratch / "mnt"


def publish(nginx: Nginx, image: Path, folder: Path) -> str:
    """Make a file system with a file in an image, put the image on the server; return the file's checksum."""
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(FILE))
    run("mkfs.ext4", "-q", "-d", folder, image)
    os.utime(image, (time.time() - 3600,) * 2)
    image.rename(nginx.root / "disk.img")
    return checksum(folder / "file")


def test_a_file_system_on_a_web_server(
    nginx: Nginx, serve: Serve, image: MakeImage, scratch: Path, somewhere: Path
) -> None:
    written = publish(nginx, image(), scratch / "content")
    before = checksum(nginx.root / "disk.img")
    url = nginx.url("disk.img")
    target = serve([f"http:{url}", f"cow:{scratch}/over.cow;create=true|cache:8MiB|http:{url}"])
    plain, over = (lun.node for lun in target.luns)
    assert (Path("/sys/block") / plain.name / "ro").read_text() == "1\n"
    with mounted(plain, somewhere, "-o", "ro"):
        assert checksum(somewhere / "file") == written
    with mounted(over, somewhere):
        assert checksum(somewhere / "file") == written
        (somewhere / "more").write_bytes(b"written" * 100_000)
    run("e2fsck", "-fn", over)
    with mounted(over, somewhere):
        assert (somewhere / "more").read_bytes() == b"written" * 100_000
    assert target.stop() == 0
    assert checksum(nginx.root / "disk.img") == before


def test_a_web_server_that_is_started_again_during_a_read_is_no_error(
    nginx: Nginx, serve: Serve, image: MakeImage, scratch: Path
) -> None:
    path = image("plain.img", 24 * MiB)
    path.write_bytes(os.urandom(24 * MiB))
    wanted = checksum(path)
    os.utime(path, (time.time() - 3600,) * 2)
    path.rename(nginx.root / "disk.img")
    target = serve([f"http:{nginx.url('disk.img')}"])
    digest = hashlib.sha256()
    starters = []
    with target.luns[0].node.open("rb", buffering=0) as disk:
        for position in range(24):
            if position % 6 == 3:
                nginx.kill()
                starters.append(threading.Timer(0.5, nginx.start))
                starters[-1].start()
            digest.update(disk.read(MiB))
            if position % 6 == 5:
                starters[-1].join()
    assert digest.hexdigest() == wanted
    assert len(starters) == 4
    assert target.stop() == 0
    assert "the server delivers again" in target.errors()


def test_a_file_that_is_replaced_is_an_error_and_the_lun_can_be_removed(
    nginx: Nginx, serve: Serve, image: MakeImage
) -> None:
    path = image("plain.img", 16 * MiB)
    os.utime(path, (time.time() - 3600,) * 2)
    path.rename(nginx.root / "disk.img")
    target = serve([f"http:{nginx.url('disk.img')}"])
    nginx.put("disk.img", os.urandom(16 * MiB))
    os.utime(nginx.root / "disk.img", (time.time() - 1800,) * 2)
    with target.luns[0].node.open("rb", buffering=0) as disk:
        disk.seek(8 * MiB)
        with pytest.raises(OSError, match="Input/output"):
            disk.read(4096)
    assert target.stop() == 0


def serial_of(lun: Lun) -> bytes:
    """Return the serial number that a disk reports (VPD page 80h)."""
    return (lun.sysfs / "device/vpd_pg80").read_bytes()[4:]


def test_a_killed_engine_is_replaced_and_another_version_of_the_file_is_another_disk(
    nginx: Nginx, serve: Serve, image: MakeImage
) -> None:
    path = image("plain.img", 16 * MiB)
    path.write_bytes(os.urandom(16 * MiB))
    wanted, moment = checksum(path), time.time() - 3600
    served = nginx.root / "disk.img"
    path.rename(served)
    os.utime(served, (moment, moment))
    words = [f"http:{nginx.url('disk.img')}"]
    first = serve(words)
    serial = serial_of(first.luns[0])
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(60)
    nginx.kill()
    starter = threading.Timer(1.0, nginx.start)
    starter.start()
    second = serve(words)
    starter.join()
    assert checksum(second.luns[0].node) == wanted
    assert serial_of(second.luns[0]) == serial
    second.process.send_signal(signal.SIGKILL)
    second.process.wait(60)
    os.utime(served, (moment - 60, moment - 60))
    third = serve(words)
    assert checksum(third.luns[0].node) == wanted
    assert serial_of(third.luns[0]) != serial
    assert third.stop() == 0
