"""Disks in use by users that cannot be seen, such as a file system in another mount namespace.

Only the kernel knows of them: `clear`, `apply` and roll-back refuse, and have changed nothing.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.polling import wait_until
from tests.vm.conftest import MakeImage
from tests.vm.daemon import Service, files, shows, size_of, vscsihba
from tests.vm.shell import mounted, run

MiB = 1 << 20
Document = dict[str, Any]


@contextmanager
def running(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program that prints a line once it is ready, and then waits; end it with all its children."""
    with subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def mounted_elsewhere(node: Path, folder: Path) -> Iterator[Path]:
    """Mount a file system in a mount namespace of its own; give its folder as seen from outside."""
    folder.mkdir()
    script = f"mount {node} {folder} && echo ready && sleep 600"
    with running("unshare", "--mount", "sh", "-c", script) as process:
        assert str(node) not in Path("/proc/self/mountinfo").read_text()
        yield Path(f"/proc/{process.pid}/root{folder}")
    wait_until(lambda: not is_claimed(node), f"{node} to be free")


def is_claimed(node: Path) -> bool:
    """Tell whether the kernel refuses to let this process have a block device for itself."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return True
    return False


def state_of(service: Service, *disks: Path) -> list[object]:
    """Return the document, the disks and their sizes, and whether all run: a refusal changes none of it."""
    return [service.ask("show"), [(disk.stat().st_rdev, size_of(disk)) for disk in disks], service.all_run()]


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """A block device, which has the size that it has."""
    node = run("losetup", "--find", "--show", image).strip()
    try:
        yield Path(node)
    finally:
        run("losetup", "--detach", node)


def test_a_file_system_of_another_mount_namespace_keeps_its_disk(
    service: Service, scratch: Path, image: MakeImage
) -> None:
    """Neither `clear`, `apply`, a roll-back nor a resize that fails changes the disk; it can grow."""
    base, fixed = image("base.img", 16 * MiB), image("fixed.img", 16 * MiB)
    with loop_device(fixed) as loop:
        stacks = {
            **files(scratch, "a"),
            "s": {"handler": "snapshot", "path": str(scratch / "set"), "create": True, "next": str(base)},
            "f": {"handler": "file", "path": str(loop)},
        }
        luns = [{"lun": number, "backstore": name} for number, name in enumerate(stacks)]

        def document(*luns: Document) -> Path:
            used = {name: stacks[name] for name in stacks if any(lun["backstore"] == name for lun in luns)}
            made = {"version": 1, "backstores": used, "hbas": [{"id": 0, "luns": luns}]}
            return service.document(made, f"{len(list(service.folder.glob('*.json')))}.json")

        vscsihba("apply", document(*luns))
        nodes = [service.disk(0, number).node for number in range(3)]
        for node in nodes:
            run("mkfs.ext4", "-q", node)
        vscsihba("snapshot", "take", "hba0/lun1", "empty")
        a, s, f = luns
        with ExitStack() as stack:
            folders = [stack.enter_context(mounted_elsewhere(node, scratch / node.name)) for node in nodes]
            for folder in folders:
                (folder / "file").write_text("kept")
            before = state_of(service, *nodes)
            for words, user, code in (
                (("clear", "0"), nodes[0], 1),
                (("apply", document(s, f)), nodes[0], 1),
                (("apply", "--replace", document({**a, "read_only": True}, s, f)), nodes[0], 1),
                (("snapshot", "roll-back", "hba0/lun1", "empty"), nodes[1], 1),
                (("resize", "a", "8MiB"), None, 2),
                (("resize", "f", "32MiB"), None, 2),
                (("resize", "s", "32MiB"), None, 2),
            ):
                told = vscsihba(*words, code=code)
                print(told)
                assert user is None or f"{user} is mounted on" in told
                assert state_of(service, *nodes) == before, words
            vscsihba("resize", "a", "+16MiB")
            assert [size_of(node) // MiB for node in nodes] == [32, 16, 16]
            for folder in folders:
                assert (folder / "file").read_text() == "kept"
                (folder / "more").write_text("written")
        for node in nodes:
            run("e2fsck", "-fn", node)
        run("sfdisk", "--quiet", "--wipe=always", nodes[1], data=b"2048\n")
        part = Path(f"/sys/block/{nodes[1].name}/{nodes[1].name}1")
        wait_until(part.exists, "a partition")
        vscsihba("snapshot", "roll-back", "hba0/lun1", "empty")
        wait_until(lambda: not part.exists(), "Linux to read the partition table that came back")
        vscsihba("clear", "0")


@contextmanager
def external_journal(node: Path, scratch: Path) -> Iterator[None]:
    """Have a disk be the journal of a file system that is elsewhere."""
    image = scratch / "journalled.img"
    with image.open("xb") as file:
        file.truncate(16 * MiB)
    run("mkfs.ext4", "-q", "-b", "1024", "-O", "journal_dev", node)
    with loop_device(image) as loop:
        run("mkfs.ext4", "-q", "-b", "1024", "-J", f"device={node}", loop)
        with mounted(loop, scratch / "journalled"):
            yield


@contextmanager
def swapped_on(node: Path) -> Iterator[None]:
    run("mkswap", node)
    run("swapon", node)
    try:
        yield
    finally:
        run("swapoff", node)


@contextmanager
def mapped(node: Path) -> Iterator[None]:
    run("dmsetup", "create", "in-use", "--table", f"0 2048 linear {node} 0")
    try:
        yield
    finally:
        run("dmsetup", "remove", "--retry", "in-use")


@contextmanager
def held(node: Path) -> Iterator[None]:
    """Have a program open a disk as mkfs does."""
    script = """
import os, sys, time
os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL)
print("ready", flush=True)
time.sleep(600)
"""
    with running(sys.executable, "-c", script, node):
        yield


def test_clear_refuses_and_names_whoever_has_claimed_a_disk(service: Service, scratch: Path) -> None:
    service.changes("apply", {"version": 1, "backstores": files(scratch, "a"), "hbas": [shows(0, "a")]})
    node = service.disk(0, 0).node
    for using, who in (
        (external_journal(node, scratch), f"{node} is the external journal of an ext4 file system"),
        (swapped_on(node), f"{node} is used as swap"),
        (mapped(node), f"{node} is held by dm-"),
        (loop_device(node), f"{node} is behind /dev/loop"),
        (held(node), f"{node} is claimed for exclusive use (O_EXCL): python"),
    ):
        with using:
            assert who in service.refused("clear", hba=0)
            assert service.lun(0, 0)["state"] == "running"
    assert service.ask("clear", hba=0)["removed"]
