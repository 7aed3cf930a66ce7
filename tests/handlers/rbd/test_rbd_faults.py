import errno
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from tests.ceph import WATCH_TIMEOUT, Cluster
from tests.handlers.rbd.conftest import Describe
from tests.handlers.rbd.test_rbd_lock import other_client
from tests.polling import wait_until
from vscsihba.errors import HostError
from vscsihba.handlers.rbd.library import rbd
from vscsihba.handlers.shared import tmpfs_store
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

BLOCK = 4096


def test_a_storage_daemon_that_comes_back_in_time_is_no_error(ceph: Cluster, describe: Describe) -> None:
    with build(describe(timeout=60)) as disk, ThreadPoolExecutor() as threads:
        write(disk, 0, b"\0" * BLOCK)
        ceph.kill_osd()
        writes = [threads.submit(write, disk, at * BLOCK, bytes([at]) * BLOCK) for at in range(1, 5)]
        reading = threads.submit(read, disk, 0, BLOCK)
        ceph.start_osd()
        for each in writes:
            each.result()
        assert reading.result() == bytes(BLOCK)
        for at in range(1, 5):
            assert read(disk, at * BLOCK, BLOCK) == bytes([at]) * BLOCK


def test_a_storage_daemon_that_stays_away_is_an_error_in_time_and_the_disk_can_be_closed(
    ceph: Cluster, describe: Describe
) -> None:
    stack = build(describe(timeout=2))
    disk = stack.open()
    try:
        write(disk, 0, b"\1" * BLOCK)
        ceph.kill_osd()
        for verb in (
            lambda: write(disk, 0, b"\2" * BLOCK),
            lambda: read(disk, 0, BLOCK),
            lambda: disk.unmap(0, BLOCK),
            lambda: disk.extents(0, BLOCK),
        ):
            began = time.monotonic()
            with pytest.raises(OSError, match=r"rbd rbd/image\d+: ") as caught:
                verb()
            assert caught.value.errno == errno.ETIMEDOUT
            assert time.monotonic() - began < 10
        began = time.monotonic()
        stack.close()
        assert time.monotonic() - began < 20
    finally:
        ceph.start_osd()
    # The lock could not be released; the next disk breaks it, unless the close has ended before.
    with build(describe()) as disk:
        write(disk, 0, b"\3" * BLOCK)
        assert read(disk, 0, BLOCK) == b"\3" * BLOCK
    wait_until(lambda: not list(tmpfs_store.DIRECTORY.glob("*rbd-*")), "the note is gone")


def test_a_storage_daemon_that_stalls_is_an_error_in_time(ceph: Cluster, describe: Describe) -> None:
    with build(describe(timeout=2)) as disk:
        write(disk, 0, b"\1" * BLOCK)
        with ceph.stalled_osd():
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                write(disk, 0, b"\2" * BLOCK)
            assert time.monotonic() - began < 5
        wait_until(lambda: _writes(disk), "writes are taken again")
        assert read(disk, 0, BLOCK) == b"\3" * BLOCK


def _writes(disk: object) -> bool:
    try:
        write(disk, 0, b"\3" * BLOCK)  # type: ignore[arg-type]
    except TimeoutError:
        return False
    return True


def test_an_owner_that_was_given_up_goes_on_if_nobody_else_came(ceph: Cluster, describe: Describe) -> None:
    """The cluster drops the watch of a silent client; librbd registers it and the lock again."""
    document = describe(timeout=60)
    with build(document) as disk, other_client(ceph, document) as other, ThreadPoolExecutor() as threads:
        write(disk, 0, b"\1" * BLOCK)
        with ceph.stalled_osd():
            late = threads.submit(write, disk, 0, b"\2" * BLOCK)
            with pytest.raises(FutureTimeout):
                late.result(timeout=WATCH_TIMEOUT + 3)
        late.result()
        for at in range(20):
            write(disk, at * BLOCK, b"\3" * BLOCK)
            time.sleep(0.1)
        assert read(disk, 0, 20 * BLOCK) == b"\3" * 20 * BLOCK
        with pytest.raises(rbd().ReadOnlyImage):
            other.write(b"\4" * BLOCK, 0)


def test_a_disk_cannot_be_opened_while_the_storage_is_away(ceph: Cluster, describe: Describe) -> None:
    with build(describe()):
        pass
    ceph.kill_osd()
    try:
        began = time.monotonic()
        with pytest.raises(HostError, match=r"cannot be opened: .*timeout"), build(describe(timeout=2)):
            pass
        assert time.monotonic() - began < 20
    finally:
        ceph.start_osd()
    with build(describe()):
        pass
