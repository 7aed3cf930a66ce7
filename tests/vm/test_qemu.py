"""Disks of QEMU images whose daemon is killed under a file system, alone and together with the engine."""

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.handlers.qemu.images import check_tables
from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.fio import Fio
from tests.vm.shell import checksum, mounted, run
from tests.vm.target import LIMIT, Target, target_objects

MiB = 1 << 20
LIVES = 5

pytestmark = pytest.mark.timeout(600)


def daemons() -> set[int]:
    """Return the processes of all qemu-storage-daemons."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(b"@qemu-storage-daemon"):
                found.add(int(entry.name))
    return found


def kill_daemon(dead: set[int]) -> None:
    """Kill the one daemon, once it is not one of the dead, to which it is added."""
    (pid,) = wait_until(lambda: daemons() - dead, "a daemon", limit=LIMIT)
    os.kill(pid, signal.SIGKILL)
    dead.add(pid)


def stack(path: Path, format_: str = "qcow2", **options: object) -> str:
    """Return the disk as one line for a command."""
    settings = "".join(f";{name}={value}" for name, value in options.items())
    return f"qemu:{path};format={format_};size=64MiB{settings}"


def connected(target: Target, times: int) -> None:
    """Wait until the disk has been connected again so many times."""
    wait_until(lambda: target.errors().count("connected again") >= times, "the connection", limit=LIMIT)


def owns(target: Target) -> bool:
    """Return whether an engine serves the disk."""
    return target.rings() == 1


def kill_engine(target: Target) -> None:
    """Kill an engine, and wait until it is dead."""
    target.process.kill()
    target.process.wait()


@pytest.fixture
def path(scratch: Path) -> Path:
    return scratch / "disk.qcow2"


@pytest.mark.parametrize("format_", ["qcow2", "vmdk"])
def test_a_file_system_survives_its_daemon(serve: Serve, path: Path, scratch: Path, format_: str) -> None:
    target = serve([stack(path, format_)])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    dead: set[int] = set()
    with mounted(node, scratch / "mnt") as where:
        fio = Fio([where / "data"], flushing=True)
        for life in range(1, LIVES + 1):
            time.sleep(0.5 + random.random())
            kill_daemon(dead)
            connected(target, life)
        for _ in range(LIVES):
            kill_daemon(dead)  # while it still repeats writes, or begins
        print(f"longest wait of an I/O {fio.finish():.2f} s")
    run("e2fsck", "-fn", node)
    assert target.stop() == 0
    assert target.errors().count("its daemon has died") > LIVES
    assert daemons() == set()
    check_tables(path, format_, killed=True)


def test_nothing_is_lost_when_engine_and_daemon_die_together(serve: Serve, path: Path, scratch: Path) -> None:
    """The kernel kills the daemon with its engine; the write log is all that is left."""
    target = serve([stack(path)])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        fio = Fio([where / "data"])
        for _ in range(3):
            time.sleep(0.5 + random.random())
            kill_engine(target)
            target = serve([stack(path)])
        for _ in range(2):
            time.sleep(0.5 + random.random())
            (daemon,) = daemons()
            os.kill(daemon, signal.SIGKILL)
            kill_engine(target)
            target = serve([stack(path)])
        print(f"longest wait of an I/O {fio.finish():.2f} s")
    run("e2fsck", "-fn", node)
    assert target.stop() == 0
    check_tables(path, killed=True)


def test_a_survivor_takes_over_from_a_killed_engine(serve: Serve, path: Path, scratch: Path) -> None:
    engines = [serve([stack(path)]), serve([stack(path)])]
    node = engines[0].luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        fio = Fio([where / "data"], flushing=True)
        for _ in range(3):
            time.sleep(0.5 + random.random())
            victim, survivor = engines if engines[0].rings() else reversed(engines)
            kill_engine(victim)
            wait_until(partial(owns, survivor), "the survivor has it", limit=LIMIT)
            engines = [survivor, serve([stack(path)])]
        print(f"longest wait of an I/O {fio.finish():.2f} s")
    run("e2fsck", "-fn", node)
    for engine in engines:
        assert engine.stop() == 0
    assert daemons() == set()


def test_without_a_daemon_a_disk_has_errors_comes_back_and_can_be_removed(serve: Serve, path: Path) -> None:
    target = serve([stack(path, timeout=1)])
    lun = target.luns[0]
    (lun.sysfs / "device/timeout").write_text("2")  # Linux repeats what is not ready for six times as long
    run("dd", "if=/dev/urandom", f"of={lun.node}", "bs=4k", "count=16", "oflag=direct")
    before = checksum(lun.node)
    away = path.with_suffix(".away")
    path.rename(away)
    run("blockdev", "--flushbufs", lun.node)
    kill_daemon(set())
    with pytest.raises(AssertionError, match="Input/output error"):
        run("dd", f"if={lun.node}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct")
    away.rename(path)
    wait_until(daemons, "a daemon again", limit=LIMIT)
    wait_until(lambda: "connected again" in target.errors(), "the connection", limit=LIMIT)
    assert checksum(lun.node) == before
    path.rename(away)
    kill_daemon(set())
    with pytest.raises(AssertionError, match="Input/output error"):
        run("dd", f"if={lun.node}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct")
    target.stop()
    wait_until(lambda: not target_objects(), "the removal", limit=LIMIT)
    assert daemons() == set()


def test_discard_and_zeroes_reach_the_image(serve: Serve, path: Path, scratch: Path) -> None:
    target = serve([stack(path)])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        (where / "file").write_bytes(os.urandom(32 * MiB))
        run("sync")
        full = path.stat().st_blocks
        (where / "file").unlink()
        run("sync")
        run("fstrim", where)
    assert path.stat().st_blocks < full - 24 * MiB // 512
    assert target.stop() == 0
