"""Disks of NBD servers that are killed under a file system, with and without the engine."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.handlers.nbd.servers import Server, nbdkit
from tests.polling import wait_until
from tests.vm.conftest import MakeImage, Serve
from tests.vm.fio import Fio
from tests.vm.shell import mounted, run
from tests.vm.target import LIMIT, Target, target_objects

MiB = 1 << 20
LIVES = 4


@pytest.fixture
def image_file(image: MakeImage) -> Path:
    return image("nbd.img", 64 * MiB)


@pytest.fixture
def volatile(scratch: Path, image_file: Path) -> Iterator[Server]:
    """A server that loses everything since the last flush when it is killed."""
    with nbdkit(scratch, "--filter=cache", "file", "cache=writeback", str(image_file)) as server:
        yield server


@pytest.fixture
def plain(scratch: Path, image_file: Path) -> Iterator[Server]:
    with nbdkit(scratch, "file", str(image_file)) as server:
        yield server


def stack(server: Server, **options: object) -> str:
    """Return the disk as one line for a command."""
    settings = "".join(f";{name}={value}" for name, value in options.items())
    return f"nbd:uri={server.uri()}{settings}"


def connected(target: Target, times: int) -> None:
    """Wait until the disk has been connected again so many times."""
    wait_until(lambda: target.errors().count("connected again") == times, "the connection", limit=LIMIT)


def test_a_file_system_survives_a_server_that_loses_its_cache(
    serve: Serve, volatile: Server, scratch: Path
) -> None:
    target = serve([stack(volatile)])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        fio = Fio([where / "data"], flushing=True)
        for life in range(1, LIVES + 1):
            time.sleep(1)
            volatile.kill()
            time.sleep(0.5)
            volatile.start()
            connected(target, life)
        print(f"longest wait of an I/O {fio.finish():.2f} s")
    run("e2fsck", "-fn", node)
    assert target.stop() == 0


def test_the_engine_and_the_server_die_together(serve: Serve, plain: Server, scratch: Path) -> None:
    """The page cache of the server's machine outlives it, so nothing that was acknowledged is lost."""
    target = serve([stack(plain)])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        fio = Fio([where / "data"], flushing=True)
        for _ in range(2):
            time.sleep(1)
            plain.kill()
            target.process.kill()
            target.process.wait()
            plain.start()
            target = serve([stack(plain)])
            time.sleep(1)
            target.process.kill()
            target.process.wait()
            target = serve([stack(plain)])
        print(f"longest wait of an I/O {fio.finish():.2f} s")
    run("e2fsck", "-fn", node)
    assert target.stop() == 0


def test_an_engine_takes_over_while_the_server_is_away(serve: Serve, plain: Server, scratch: Path) -> None:
    owner = serve([stack(plain)])
    successor = serve([stack(plain)])
    node = owner.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        fio = Fio([where / "data"], flushing=True)
        time.sleep(1)
        plain.kill()
        owner.process.kill()
        owner.process.wait()
        time.sleep(3)
        plain.start()
        print(f"longest wait of an I/O {fio.finish():.2f} s")
    run("e2fsck", "-fn", node)
    assert successor.stop() == 0


def test_without_its_server_a_disk_has_errors_and_can_be_removed(serve: Serve, plain: Server) -> None:
    target = serve([stack(plain, timeout=1)])
    lun = target.luns[0]
    (lun.sysfs / "device/timeout").write_text("2")  # Linux repeats what is not ready for six times as long
    plain.kill()
    began = time.monotonic()
    with pytest.raises(AssertionError, match="Input/output error"):
        run("dd", f"if={lun.node}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct")
    print(f"failed after {time.monotonic() - began:.1f} s")
    target.stop()
    wait_until(lambda: not target_objects(), "the removal", limit=LIMIT)


def test_a_disk_comes_back_after_errors(serve: Serve, plain: Server) -> None:
    target = serve([stack(plain, timeout=1)])
    lun = target.luns[0]
    (lun.sysfs / "device/timeout").write_text("2")
    plain.kill()
    with pytest.raises(AssertionError, match="Input/output error"):
        run("dd", f"if={lun.node}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct")
    plain.start()
    connected(target, 1)
    run("dd", f"if={lun.node}", "of=/dev/null", "bs=4k", "count=16", "iflag=direct")
    assert target.stop() == 0
