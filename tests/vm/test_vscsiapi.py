"""Disks of a program that answers commands itself: the example of the four calls, raw and handler LUNs."""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.shell import mounted, run
from tests.vm.target import target_objects
from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.stack import build
from vscsihba.hba import Management, Task, VirtualHba
from vscsihba.vscsiapi import Code, get_scsi_task, last_error, register_scsi_host, unregister_scsi_host

MiB = 1 << 20
TOP = Path(__file__).parents[2]
Image = Callable[..., Path]


@contextmanager
def ramdisk(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run the example; gives its process and its disk."""
    program = subprocess.Popen(
        [sys.executable, "-u", TOP / "examples/ramdisk.py", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=TOP,
    )
    try:
        assert program.stdout is not None
        assert program.stderr is not None
        assert select.select([program.stdout], [], [], 120)[0], "no word of it"
        line = program.stdout.readline().decode()
        found = re.fullmatch(r"0 (/dev/sd\w+)\n", line)
        assert found, line + program.stderr.read().decode()
        yield program, Path(found[1])
    finally:
        program.terminate()
        try:
            program.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate()
            raise


def test_example_with_a_file_system_and_fio(scratch: Path) -> None:
    before = target_objects()
    with ramdisk("96MiB", "5") as (program, disk):
        assert run("blockdev", "--getsize64", disk).strip() == str(96 * MiB)
        assert "RAM DISK" in run("lsblk", "-n", "-d", "-o", "MODEL", disk)
        run("mkfs.ext4", "-q", disk)
        with mounted(disk, scratch / "mnt") as where:
            data = os.urandom(MiB)
            (where / "file").write_bytes(data)
            run("sync", "-f", where)
        with mounted(disk, scratch / "mnt", "-o", "ro") as where:
            assert (where / "file").read_bytes() == data
        run("e2fsck", "-fn", disk)
        fio = ["fio", "--name=verify", f"--filename={disk}", "--direct=1", "--rw=randwrite", "--bs=4k"]
        run(*fio, "--size=8M", "--verify=crc32c", "--iodepth=8", "--ioengine=libaio", "--minimal")
        program.send_signal(signal.SIGINT)
        assert program.wait(120) == 0
        assert not disk.exists()
    assert target_objects() == before


def test_example_says_why_it_cannot(scratch: Path) -> None:
    with ramdisk("1MiB", "5"):
        second = subprocess.run(
            [sys.executable, TOP / "examples/ramdisk.py", "1MiB", "5"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=TOP,
        )
    assert second.returncode == 1
    assert "HBA 5 is already served by process" in second.stderr


@contextmanager
def answering(hba: VirtualHba, how: Callable[[Task], None]) -> Iterator[None]:
    def loop() -> None:
        for task in hba.tasks():
            how(task)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        hba.stop()
        thread.join(120)
        assert not thread.is_alive()


def test_raw_and_handler_luns_together(image: Image) -> None:
    before = target_objects()
    file = image("a.img", 16 * MiB)
    seen: set[int] = set()
    with VirtualHba(6) as hba, build({"handler": "memory", "size": "16MiB"}) as memory:
        raw = hba.add_lun(0, size="16MiB")
        hba.add_lun(1, handler=str(file))

        def answer(task: Task) -> None:
            seen.add(task.cdb[0])
            task.answer_as(raw.unit, memory)

        with answering(hba, answer):
            disks = [hba.wait_for_disk(lun, 120) for lun in (0, 1)]
            assert [lun.device for lun in hba.luns.values()] == disks
            data = os.urandom(4 * MiB)
            for disk in disks:
                run("dd", f"of={disk}", "bs=1M", "oflag=direct", "status=none", data=data)
                with disk.open("rb") as opened:
                    assert opened.read(len(data)) == data
        assert hba.detached
        assert not any(disk.exists() for disk in disks)
    assert seen >= {0x12, 0x2A, 0x28}
    assert file.read_bytes()[: len(data)] == data
    assert target_objects() == before


SERVES = """
import sys, threading
from vscsihba.hba import VirtualHba

hba = VirtualHba(6).__enter__()
for lun, path in enumerate(sys.argv[1:]):
    hba.add_lun(lun, handler=path)
    print(hba.wait_for_disk(lun), flush=True)
threading.Event().wait()
"""


@contextmanager
def killed_later(*images: Path) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    """Serve images as LUNs of handlers in a process of their own, which is killed in the end."""
    command = [sys.executable, "-c", SERVES, *map(str, images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [Path(process.stdout.readline().strip()) for _ in images]
        finally:
            process.kill()


def test_what_a_killed_program_served_is_gone_on_with_by_the_next(image: Image) -> None:
    before = target_objects()
    images = [image("a.img", 8 * MiB), image("b.img", 8 * MiB)]
    data = os.urandom(4 * MiB)
    with killed_later(*images) as (process, disks):
        copy = ["dd", f"of={disks[0]}", "bs=64k", "oflag=direct", "iflag=fullblock"]
        with subprocess.Popen(copy, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            assert writer.stdin is not None
            writer.stdin.write(data[: 2 * MiB])
            process.kill()
            process.wait(60)
            with VirtualHba(6) as hba:
                assert hba.add_lun(0, handler=str(images[0])).wait_for_disk(60) == disks[0]
                writer.stdin.write(data[2 * MiB :])
                writer.stdin.close()
                assert writer.wait(120) == 0
                assert disks[1].exists(), "it may still be wanted"
    assert images[0].read_bytes()[: len(data)] == data
    assert target_objects() == before


def test_what_a_killed_program_served_is_gone_on_with_by_vscsitarget(image: Image, serve: Serve) -> None:
    disk = image("a.img", 8 * MiB)
    with killed_later(disk) as (process, disks):
        process.kill()
        process.wait(60)
        target = serve([disk], hba=6)
        assert [lun.node for lun in target.luns] == disks
        run("dd", "if=/dev/urandom", f"of={disks[0]}", "bs=64k", "count=8", "oflag=direct")
        assert target.stop() == 0


def test_another_disk_takes_the_place_of_what_a_killed_program_served(image: Image) -> None:
    images = [image("a.img", 8 * MiB), image("b.img", 4 * MiB)]
    with killed_later(*images) as (process, _):
        process.kill()
        process.wait(60)
        with VirtualHba(6) as hba:
            hba.add_lun(0, handler=str(images[1]))
            disk = hba.wait_for_disk(0, 60)
            assert run("blockdev", "--getsize64", disk).strip() == str(4 * MiB)


def test_luns_come_and_go_while_the_hba_lives(image: Image) -> None:
    with VirtualHba(6) as hba:
        hba.add_lun(0, handler=str(image("a.img", 4 * MiB)))
        stays = hba.wait_for_disk(0, 120)
        for size in (4, 8):
            hba.add_lun(1, handler=str(image(f"b{size}.img", size * MiB)))
            disk = hba.wait_for_disk(1, 120)
            assert run("blockdev", "--getsize64", disk).strip() == str(size * MiB)
            run("dd", "if=/dev/zero", f"of={disk}", "bs=64k", "count=4")
            hba.remove_lun(1).wait_until_gone(120)
            assert not disk.exists()
            run("dd", f"if={stays}", "of=/dev/null", "bs=64k", "count=4", "iflag=direct")


def test_leaving_while_tasks_are_open_does_not_hang(image: Image) -> None:
    """The caller leaves with reads in hand; dd is told, and everything is taken down."""
    before = target_objects()
    hold = threading.Event()
    with VirtualHba(6) as hba, build({"handler": "memory", "size": "16MiB"}) as memory:
        raw = hba.add_lun(0, size="16MiB")
        held: list[Task] = []

        def loop() -> None:
            while (task := hba.next_task()) is not None:
                if hold.is_set() and task.cdb[0] == 0x28:
                    held.append(task)
                else:
                    task.answer_as(raw.unit, memory)

        thread = threading.Thread(target=loop)
        thread.start()
        disk = hba.wait_for_disk(0, 120)
        run("udevadm", "settle")
        hold.set()
        reader = subprocess.Popen(
            ["dd", f"if={disk}", "of=/dev/null", "bs=4k", "count=1", "skip=100", "iflag=direct"],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: held, "a read")
    thread.join(60)
    assert not thread.is_alive()
    assert reader.wait(60) != 0
    assert target_objects() == before


def test_an_abort_reaches_the_caller_who_then_completes() -> None:
    """Linux gives a read up after 2 s, tells us, waits for our answer, and does the read again."""
    told: list[Management] = []
    hold = threading.Event()
    with (
        VirtualHba(6, on_management=told.append) as hba,
        build({"handler": "memory", "size": "16MiB"}) as memory,
    ):
        raw = hba.add_lun(0, size="16MiB")
        held: list[Task] = []

        def answer(task: Task) -> None:
            if hold.is_set() and not held and task.cdb[0] == 0x28:
                held.append(task)
                return
            task.answer_as(raw.unit, memory)

        with answering(hba, answer):
            disk = hba.wait_for_disk(0, 120)
            run("udevadm", "settle")
            (Path("/sys/block") / disk.name / "device/timeout").write_text("2")
            hold.set()
            words = ["dd", f"if={disk}", "of=/dev/null", "bs=4k", "count=1", "skip=100", "iflag=direct"]
            with subprocess.Popen(words, stderr=subprocess.DEVNULL) as reader:
                wait_until(lambda: told, "an abort")
                assert held[0].aborted == told[0].function == "ABORT TASK"
                assert told[0].tasks == (held[0],)
                held[0].complete(0x40)
                assert reader.wait(120) == 0
            hold.clear()


def test_a_raw_lun_that_nobody_answers_for_is_left_at_once() -> None:
    before = target_objects()
    begun = time.monotonic()
    with VirtualHba(6) as hba:
        hba.add_lun(0, size="16MiB")
        assert hba.next_task(60) is not None, "the kernel asks"
    assert time.monotonic() - begun < 60
    assert target_objects() == before


def test_what_a_killed_program_leaves_is_cleared_by_the_next() -> None:
    with ramdisk("4MiB", "5") as (program, _):
        program.kill()
        program.wait(60)
        assert target_objects()
        with ramdisk("8MiB", "5") as (_, disk):
            assert run("blockdev", "--getsize64", disk).strip() == str(8 * MiB)


def test_register_says_why_it_cannot() -> None:
    with VirtualHba(6):
        assert register_scsi_host("/dev/vscsihba6", sizes="1MiB") is None
        assert "already served" in last_error()
        with pytest.raises(InUseError), VirtualHba(6):
            pass


def test_forty_lives() -> None:
    before, descriptors = target_objects(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(40):
        task = register_scsi_host("/dev/vscsihba5", sizes="1MiB", wait=60)
        assert task is not None, last_error()
        assert get_scsi_task(task) == Code.OK
        assert unregister_scsi_host(task) == Code.OK
        assert get_scsi_task(task) == Code.BAD_SESSION
    assert target_objects() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_disk_is_not_waited_for_beyond_its_time() -> None:
    with VirtualHba(6) as hba:
        lun = hba.add_lun(0, size="1MiB")
        with pytest.raises(HostError, match="not linked after 1 s"):
            lun.wait_for_disk(1)
