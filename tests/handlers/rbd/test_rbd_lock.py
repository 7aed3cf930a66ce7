import errno
import gc
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ceph import Cluster
from tests.handlers.rbd.conftest import Describe
from vscsihba.errors import HostError, InUseError, UsageError
from vscsihba.handlers.rbd.handler import RbdHandler
from vscsihba.handlers.rbd.library import rbd
from vscsihba.handlers.shared import tmpfs_store
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read, write

BLOCK = 4096


@contextmanager
def owner(document: Document, byte: int, notes: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has the disk and writes to it, of this machine or with `notes` of its own."""
    command = [sys.executable, "-m", "tests.handlers.rbd.owner", str(notes or tmpfs_store.DIRECTORY)]
    process = subprocess.Popen([*command, json.dumps(document), str(byte)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "written\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def last_line(process: subprocess.Popen[str]) -> str:
    """Wait for the end of an owner, and return what it said last."""
    out, _ = process.communicate(timeout=60)
    return out.splitlines()[-1]


@contextmanager
def other_client(ceph: Cluster, document: Document) -> Iterator[Any]:
    """Open the image by another client, without our handler."""
    assert not isinstance(document, str)
    with ceph.pool() as pool, rbd().Image(pool, document["image"]) as image:
        yield image


def take_lock(image: Any) -> None:
    """Break the lock of whoever has it, and take it."""
    for holder in image.lock_get_owners():
        image.lock_break(rbd().RBD_LOCK_MODE_EXCLUSIVE, holder["owner"])
    image.lock_acquire(rbd().RBD_LOCK_MODE_EXCLUSIVE)


def blocklist(ceph: Cluster) -> str:
    return ceph.command("osd blocklist ls").decode()


def test_a_killed_owner_of_this_machine_is_blocked_and_followed_at_once(
    ceph: Cluster, describe: Describe
) -> None:
    document, before = describe(lock_wait=0), blocklist(ceph)  # it waits for nobody
    with owner(document, 1) as process:
        process.kill()
        process.wait()
        with build(document) as disk:
            assert read(disk, 0, BLOCK) == b"\1" * BLOCK
            write(disk, 0, b"\2" * BLOCK)
    assert len(blocklist(ceph).split()) > len(before.split())


def test_a_second_kill_leaves_the_disk_to_the_third_owner(describe: Describe) -> None:
    document = describe()
    for byte in (1, 2):
        with owner(document, byte) as process:
            process.kill()
            process.wait()
    with build(document) as disk:
        assert read(disk, 0, BLOCK) == b"\2" * BLOCK
        (note,) = tmpfs_store.DIRECTORY.glob("*rbd-*")
        assert len(json.loads(note.read_bytes()[tmpfs_store.HEAD :])) == 1, "the dead ones are forgotten"


def test_an_owner_killed_between_its_note_and_its_lock_is_no_hindrance(describe: Describe) -> None:
    document = describe(lock_wait=0)  # it waits for nobody
    with owner(document, 1) as process:
        process.kill()
        process.wait()
    # The next one is killed where `acquire` would be called: the note then has both addresses.
    kill = "import os, vscsihba.handlers.rbd.lock as lock; lock.acquire = lambda *_, **__: os._exit(9); "
    arguments = (str(tmpfs_store.DIRECTORY), json.dumps(document), "2")
    main = f"from tests.handlers.rbd.owner import main; main(*{arguments!r})"
    assert subprocess.run([sys.executable, "-c", kill + main], check=False).returncode == 9
    with build(document) as disk:
        assert read(disk, 0, BLOCK) == b"\1" * BLOCK


def test_a_clean_close_blocks_nobody_and_leaves_no_note(ceph: Cluster, describe: Describe) -> None:
    document, before = describe(), blocklist(ceph)
    for _ in range(2):
        with build(document):
            assert list(tmpfs_store.DIRECTORY.glob("*rbd-*"))
        assert not list(tmpfs_store.DIRECTORY.glob("*rbd-*"))
    assert blocklist(ceph) == before


def test_a_client_that_could_not_close_the_image_is_blocked_by_the_next_one(
    ceph: Cluster, describe: Describe
) -> None:
    class Unclosable:
        def __init__(self, image: Any) -> None:
            self.image = image

        def close(self) -> None:
            raise OSError(errno.EIO, "the image cannot be closed")

    document, before = describe(lock_wait=0), blocklist(ceph)  # it waits for nobody
    stack = build(document)
    write(stack.open(), 0, b"\1" * BLOCK)
    (source,) = stack.layers
    assert isinstance(source, RbdHandler)
    source._session.image = Unclosable(source._session.image)
    with pytest.raises(OSError, match="cannot be closed"):
        stack.close()
    del stack, source
    gc.collect()
    assert list(tmpfs_store.DIRECTORY.glob("*rbd-*"))
    with build(document) as disk:
        assert read(disk, 0, BLOCK) == b"\1" * BLOCK
    assert blocklist(ceph) != before


def test_late_writes_of_a_stalled_owner_are_refused(describe: Describe, tmp_path: Path) -> None:
    """The owner is another machine that hangs; after a while its lock is broken, and it wakes up."""
    document = describe(lock_wait=20)
    with owner(document, 1, notes=tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with build(document) as disk:
            write(disk, 0, b"\2" * BLOCK)
            process.send_signal(signal.SIGCONT)
            assert last_line(process) == str(errno.ESHUTDOWN)
            assert read(disk, 0, BLOCK) == b"\2" * BLOCK
            write(disk, 0, b"\3" * BLOCK)


def test_a_disk_whose_lock_was_broken_fails_for_good(ceph: Cluster, describe: Describe) -> None:
    document = describe()
    with build(document) as disk, other_client(ceph, document) as other:
        write(disk, 0, b"\1" * BLOCK)
        take_lock(other)
        other.write(b"\2" * BLOCK, 0)
        for _ in range(2):  # the second time without asking the cluster
            with pytest.raises(OSError, match="another client has taken over") as caught:
                write(disk, 0, b"\3" * BLOCK)
            assert caught.value.errno == errno.ESHUTDOWN
        with pytest.raises(OSError, match="another client has taken over"):
            read(disk, 0, BLOCK)
        assert other.read(0, BLOCK) == b"\2" * BLOCK


def test_a_write_that_is_on_its_way_when_the_lock_is_broken_never_lands_later(
    ceph: Cluster, describe: Describe
) -> None:
    """A storage daemon hangs with the write in its queue; the commands of the new owner come after it."""
    document = describe(timeout=30)
    with build(document) as disk, other_client(ceph, document) as other, ThreadPoolExecutor() as threads:
        write(disk, 0, b"\1" * BLOCK)
        with ceph.stalled_osd():
            late = threads.submit(write, disk, 0, b"\3" * BLOCK)
            taken = threads.submit(take_lock, other)
            with pytest.raises(TimeoutError):
                late.result(timeout=1)
        taken.result()
        other.write(b"\2" * BLOCK, 0)
        error = late.exception()
        assert error is None or (isinstance(error, OSError) and error.errno == errno.ESHUTDOWN)
        assert other.read(0, BLOCK) == b"\2" * BLOCK
        with pytest.raises(OSError, match="another client has taken over"):
            write(disk, 0, b"\3" * BLOCK)


def test_a_dead_machine_is_followed_when_its_watch_has_ended(describe: Describe, tmp_path: Path) -> None:
    document = describe(lock_wait=20)
    with owner(document, 1, notes=tmp_path) as process:
        process.kill()
        process.wait()
        with build(document) as disk:
            assert read(disk, 0, BLOCK) == b"\1" * BLOCK


def test_a_dead_machine_is_waited_for_no_longer_than_allowed(describe: Describe, tmp_path: Path) -> None:
    document = describe(lock_wait=0)
    with owner(document, 1, notes=tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(InUseError, match="which does not answer; try again"), build(document):
            pass
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"


def test_a_living_owner_elsewhere_is_left_alone(describe: Describe, tmp_path: Path) -> None:
    document = describe()
    with owner(document, 1, notes=tmp_path) as process:
        with pytest.raises(InUseError, match="is in use by the client"), build(document):
            pass
        assert process.stdout is not None
        for _ in range(1000):
            assert process.stdout.readline() == "written\n"


def test_a_refused_disk_leaves_no_trace(ceph: Cluster, describe: Describe, tmp_path: Path) -> None:
    document, before = describe(), blocklist(ceph)
    with owner(document, 1, notes=tmp_path):
        with pytest.raises(InUseError), build(document):
            pass
        assert not list(tmpfs_store.DIRECTORY.glob("*rbd-*"))
    assert blocklist(ceph) == before


def test_a_client_that_takes_the_lock_when_it_writes_is_left_alone(ceph: Cluster, describe: Describe) -> None:
    """As a virtual machine of QEMU does: librbd would hand the lock over when asked for it."""
    document = describe()
    with build(document):
        pass
    with other_client(ceph, document) as other:
        other.write(b"\1" * BLOCK, 0)
        with pytest.raises(InUseError, match="is in use by the client"), build(document):
            pass
        assert other.is_exclusive_lock_owner()


def test_two_disks_of_one_machine_cannot_have_one_image(describe: Describe) -> None:
    document = describe()
    with build(document), pytest.raises(InUseError, match="by another disk of this machine"), build(document):
        pass


def test_other_writers_are_refused(ceph: Cluster, describe: Describe) -> None:
    document = describe()
    with build(document) as disk, other_client(ceph, document) as other:
        with pytest.raises(rbd().ReadOnlyImage):
            other.write(b"\1" * BLOCK, 0)
        assert not any(read(disk, 0, BLOCK))
        write(disk, 0, b"\2" * BLOCK)


def test_without_a_lock_two_disks_share_an_image(describe: Describe) -> None:
    document = describe(lock="none", features=["layering"])
    with build(document) as one, build(document) as other:
        write(one, 0, b"\1" * BLOCK)
        assert read(other, 0, BLOCK) == b"\1" * BLOCK
        write(other, 0, b"\2" * BLOCK)
        assert read(one, 0, BLOCK) == b"\2" * BLOCK


def test_an_image_without_the_feature_needs_to_be_told(describe: Describe) -> None:
    with build(describe(lock="none", features=["layering"])):
        pass
    with pytest.raises(UsageError, match=r"has no exclusive lock, .*rbd feature enable"), build(describe()):
        pass


def test_readers_need_no_lock(describe: Describe) -> None:
    with build(describe()) as writer, build(describe(size=None, read_only=True)) as reader:
        write(writer, 0, b"\1" * BLOCK)
        assert read(reader, 0, BLOCK) == b"\1" * BLOCK
        with pytest.raises(OSError, match="Read-only"):
            write(reader, 0, b"\1" * BLOCK)


def test_a_user_who_may_not_block_others_is_told_so(ceph: Cluster, describe: Describe) -> None:
    document = describe()
    keyring = ceph.make_user("weak", mon="allow r", osd="allow rwx pool=rbd")
    with owner(document, 1) as process:
        process.kill()
        process.wait()
        weak = describe(user="weak", keyring=str(keyring))
        with pytest.raises(HostError, match="capabilities mon 'profile rbd'"), build(weak):
            pass
        with build(document) as disk:  # the note still names the dead client
            assert read(disk, 0, BLOCK) == b"\1" * BLOCK
