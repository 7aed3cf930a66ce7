"""Traces of the LUNs of a program: raw LUNs, which the program answers, and those of handlers."""

import shutil
from pathlib import Path

from tests.capture.test_packets import check_decoded, having
from tests.hba.rig import CHECK_CONDITION, INQUIRY, LUN_RESET, READ, serving
from tests.polling import wait_until
from vscsihba.capture.recording import record
from vscsihba.hba import LoopbackPort, Task, VirtualHba
from vscsihba.records import Direction, Kind

TAPE = bytes([1, 0x80, 6, 2, 31, 0, 0, 0]) + b"VSCSIHBA" + b"a tape".ljust(16) + b"0001"
READ_6 = bytes((0x08, 0, 0, 2, 0, 0))
WRITE_6 = bytes((0x0A, 0, 0, 2, 0, 0))
FILEMARK = bytes((0x10, 0, 0, 0, 1, 0))


def as_tape(task: Task) -> None:
    """Answer a few commands as a tape does."""
    if task.cdb[0] == INQUIRY[0]:
        task.buffer.scatter(TAPE)
        task.complete(data_in=len(TAPE))
    elif task.cdb[0] == READ_6[0]:
        task.buffer.scatter(b"t" * 512)
        task.complete(data_in=512)
    elif task.cdb[0] in (WRITE_6[0], FILEMARK[0]):
        task.complete()
    else:
        task.check_condition()


def test_a_raw_lun_is_traced_as_the_device_that_its_program_plays(tmp_path: Path) -> None:
    port = LoopbackPort()
    with VirtualHba(9, port=port) as hba, serving(hba, as_tape):
        hba.add_lun(4, size="1MiB")
        wait_until(lambda: 4 in port.loopbacks)
        port.run(4, INQUIRY, data_in=96)  # long before the trace, as Linux does
        with record(hba.taps, 9, None) as recording:
            port.run(4, READ_6, data_in=512)
            port.run(4, WRITE_6, data_out=b"w" * 512)
            port.run(4, FILEMARK)
            port.run(4, bytes((0xC0, *bytes(9))))
            port.loopbacks[4].manage(LUN_RESET)
            port.run(4, READ_6, data_in=512)
        port.run(4, READ_6, data_in=512)
    read, write, filemark, refused, _again = recording.commands
    assert [seen.record.kind for seen in recording.events].count(Kind.MANAGEMENT) == 1
    assert (read.record.direction, read.record.data, read.device_type) == (Direction.IN, b"t" * 512, 1)
    assert (write.record.direction, write.record.data) == (Direction.OUT, b"w" * 512)
    assert (filemark.cdb, filemark.name) == (FILEMARK, "opcode 10h")
    assert (refused.record.status, refused.queued, refused.storage) == (CHECK_CONDITION, None, None)
    assert read.place == (9, 4)
    recording.save(path := tmp_path / "tape.pcapng")
    if shutil.which("tshark"):
        packets = check_decoded(path, 5)
        for opcode in ("0x08", "0x0a", "0x10"):
            assert having(packets, "scsi_ssc.opcode", opcode)


def test_luns_of_both_kinds_of_one_program_are_traced_together() -> None:
    port = LoopbackPort()
    with VirtualHba(9, port=port) as hba, serving(hba):
        hba.add_lun(0, size="1MiB")
        hba.add_lun(1, handler={"handler": "memory", "size": "1MiB"})
        wait_until(lambda: {0, 1} <= set(port.loopbacks))
        with record(hba.taps, 9, frozenset({0, 1})) as recording:
            for lun in (0, 1):
                port.run(lun, INQUIRY, data_in=96)
            port.run(1, READ, data_in=512)
            hba.remove_lun(0).wait_until_gone()
        assert [seen.record.lun for seen in recording.commands] == [0, 1, 1]
        gone = [seen.record.lun for seen in recording.events if seen.record.kind is Kind.GONE]
        assert gone == [0]
        assert recording.lost == 0
