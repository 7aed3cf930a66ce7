"""The complete stack without a kernel: initiator -> ring bytes -> engine -> file, and back."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from vscsihba.engine.serving.call_queue import GuardedCalls
from vscsihba.engine.serving.lun import BATCH
from vscsihba.tcmu import abi

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def test_bytes_of_the_file_reach_the_initiator(image: Path) -> None:
    with Rig(str(image)) as rig:
        answer = rig.read(3, 5)
    assert (answer.status, answer.data, answer.residual) == (GOOD, image.read_bytes()[1536:4096], 0)


def test_what_the_initiator_writes_is_in_the_file(image: Path) -> None:
    before = image.read_bytes()
    with Rig(str(image)) as rig:
        assert rig.write(7, b"W" * 1024).status == GOOD
    assert image.read_bytes() == before[:3584] + b"W" * 1024 + before[4608:]


def test_large_transfers_cross_many_pages(image: Path) -> None:
    data = random.Random(2).randbytes(SIZE // 2)
    with Rig(str(image)) as rig:
        assert rig.write(0, data).status == GOOD
        assert rig.read(0, SIZE // 1024).data == data
    assert image.read_bytes()[: SIZE // 2] == data


def test_4096_byte_blocks(tmp_path: Path) -> None:
    path = tmp_path / "4k.img"
    path.write_bytes(bytes(SIZE))
    with Rig({"handler": "file", "path": str(path), "block_size": 4096, "physical_block_size": 4096}) as rig:
        assert rig.write(255, b"E" * 4096, block_size=4096).status == GOOD
        assert rig.read(255, 1, block_size=4096).data == b"E" * 4096
        assert triple(rig.read(255, 2, block_size=4096)) == (5, 0x21, 0)
    assert path.read_bytes()[-4096:] == b"E" * 4096


def test_forced_unit_access_is_carried_out(image: Path) -> None:
    with Rig(str(image)) as rig:
        assert rig.write(0, b"F" * 512, flags=0x08).status == GOOD
        assert rig.stats.waits >= 1, "a write to stable storage may block, and must not do so inline"
    assert image.read_bytes()[:512] == b"F" * 512


def test_discard_makes_the_file_smaller(image: Path) -> None:
    os.sync()
    before = image.stat().st_blocks
    parameters = (
        bytes([0, 22, 0, 16, 0, 0, 0, 0]) + (0).to_bytes(8, "big") + (1024).to_bytes(4, "big") + bytes(4)
    )
    with Rig(str(image)) as rig:
        answer = rig.run(bytes([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]), data_out=parameters)
        assert answer.status == GOOD
        assert rig.read(0, 1024).data == bytes(1024 * 512)
    assert image.stat().st_blocks < before


def test_a_file_cut_short_gives_medium_error_for_what_is_gone(image: Path) -> None:
    with Rig(str(image)) as rig:
        os.truncate(image, SIZE // 2)
        lost = rig.read(SIZE // 1024 - 4, 8)
        assert lost.status == CHECK_CONDITION
        assert triple(lost) == (3, 0x11, 0)
        assert int.from_bytes(lost.sense[3:7], "big") == SIZE // 1024, "names the first lost block"
        assert rig.read(0, 8).status == GOOD, "what is left can still be read"
        assert rig.write(SIZE // 512 - 1, bytes(512)).status == CHECK_CONDITION
    assert image.stat().st_size == SIZE // 2, "a write did not bring the lost bytes back as zeroes"


def test_a_read_only_disk_refuses_writes_and_stays_as_it_is(image: Path) -> None:
    before = image.read_bytes()
    with Rig({"handler": "file", "path": str(image), "read_only": True}) as rig:
        assert triple(rig.write(0, bytes(512))) == (7, 0x27, 0)
        assert rig.read(0, 1).status == GOOD
    assert image.read_bytes() == before


def test_many_commands_are_published_in_batches(image: Path) -> None:
    with Rig(str(image)) as rig:
        rig.pump.stop()
        kicks = rig.loopback.kicks
        tags = [rig.loopback.submit(rw10(0x28, n, 1), data_in=512) for n in range(32)]
        while rig.served.pending():
            assert rig.served.serve() == BATCH
        assert rig.loopback.kicks == kicks + 32 // BATCH
        content = image.read_bytes()
        for n, tag in enumerate(tags):
            assert rig.loopback.answers[tag].data == content[512 * n : 512 * n + 512]
        rig.pump = type(rig.pump)()
        rig.pump.start()
        vars(rig.served._calls).update(vars(GuardedCalls(rig.pump.calls, rig.served._fail)))


def test_an_attention_takes_the_slow_path_first(image: Path) -> None:
    with Rig(str(image)) as rig:
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET)
        assert triple(rig.read(0, 1))[0] == 6
        assert rig.read(0, 1).data == image.read_bytes()[:512]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.binary(min_size=1, max_size=32),
                st.builds(
                    lambda opcode, rest: bytes([opcode]) + rest,
                    st.sampled_from(
                        sorted({0x00, 0x08, 0x12, 0x1A, 0x28, 0x2A, 0x41, 0x42, 0x88, 0x8A, 0x93, 0x9E})
                    ),
                    st.binary(min_size=15, max_size=15),
                ),
            ),
            st.booleans(),
            st.integers(0, 9000),
        ),
        max_size=20,
    )
)
def test_any_command_gets_an_answer_and_no_stale_byte(commands: list[tuple[bytes, bool, int]]) -> None:
    with Rig({"handler": "memory", "size": SIZE}) as rig:
        for cdb, writes, length in commands:
            if writes:
                answer = rig.run(cdb, data_out=bytes(length))
            else:
                answer = rig.run(cdb, data_in=length)
                # The medium holds zeroes and nothing was written but zeroes; the ring's unused
                # pages are full of this byte.
                assert b"\xa5" * 4 not in answer.data
            assert answer.status in (GOOD, CHECK_CONDITION)
            assert (answer.status == CHECK_CONDITION) == bool(answer.sense)
        assert rig.run(bytes(6)).status in (GOOD, CHECK_CONDITION), "still alive"
        assert not rig.loopback.broken
        assert rig.loopback.outstanding == 0
