"""Images that a real pump serves over an in-process ring: requests without threads, and sense data."""

import struct

from tests.ceph import Cluster
from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from tests.handlers.rbd.conftest import Describe
from tests.handlers.rbd.test_rbd_lock import other_client, take_lock
from tests.polling import wait_until

BLOCK = 4096
UNMAP = bytes([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0])
SYNCHRONIZE_CACHE = bytes([0x35, *bytes(9)])
NOT_READY, HARDWARE_ERROR = 2, 4


def attentive(rig: Rig) -> Rig:
    """Take the unit attentions."""
    wait_until(lambda: rig.run(bytes(6)).status == GOOD)
    return rig


def unmap(lba: int, blocks: int) -> bytes:
    return struct.pack(">HH4xQI4x", 22, 16, lba, blocks)


def test_commands_need_no_threads(describe: Describe) -> None:
    with Rig(describe()) as rig:
        attentive(rig)
        tags = [
            rig.loopback.submit(rw10(0x2A, at * 8, 8), data_out=bytes([at + 1]) * BLOCK) for at in range(32)
        ]
        assert all(rig.loopback.wait(tag).status == GOOD for tag in tags)
        tags = [rig.loopback.submit(rw10(0x28, at * 8, 8), data_in=BLOCK) for at in range(32)]
        for at, tag in enumerate(tags):
            assert rig.loopback.wait(tag).data == bytes([at + 1]) * BLOCK
        assert rig.run(SYNCHRONIZE_CACHE).status == GOOD
        assert rig.run(UNMAP, data_out=unmap(8, 8)).status == GOOD
        assert rig.read(0, 24).data == b"\1" * BLOCK + bytes(BLOCK) + b"\3" * BLOCK
        assert rig.served._workers._threads == 0


def test_a_cluster_that_does_not_answer_is_not_ready(ceph: Cluster, describe: Describe) -> None:
    with Rig(describe(timeout=1)) as rig:
        attentive(rig).write(0, b"\1" * BLOCK)
        with ceph.stalled_osd():
            for answer in (rig.write(0, b"\2" * BLOCK), rig.read(0, 8)):
                assert answer.status == CHECK_CONDITION
                assert triple(answer)[0] == NOT_READY
            assert rig.run(SYNCHRONIZE_CACHE).status == GOOD  # no acknowledged write is in doubt
        wait_until(lambda: rig.write(0, b"\3" * BLOCK).status == GOOD, "the cluster answers")
        assert rig.read(0, 8).data == b"\3" * BLOCK


def test_a_lost_lock_is_a_hardware_error(ceph: Cluster, describe: Describe) -> None:
    document = describe()
    with Rig(document) as rig, other_client(ceph, document) as other:
        attentive(rig).write(0, b"\1" * BLOCK)
        take_lock(other)
        for answer in (rig.write(0, b"\2" * BLOCK), rig.read(0, 8)):
            assert answer.status == CHECK_CONDITION
            assert triple(answer)[0] == HARDWARE_ERROR
        assert other.read(0, BLOCK) == b"\1" * BLOCK
