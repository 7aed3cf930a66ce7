"""The four calls, and every code that they return."""

import ctypes
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.hba.rig import CHECK_CONDITION, INQUIRY, READ, TEST_UNIT_READY, VENDOR, WRITE, key
from tests.vscsiapi.conftest import Host, pointer_to
from vscsihba import vscsiapi as api
from vscsihba.errors import HostError
from vscsihba.hba import LoopbackPort, Task
from vscsihba.vscsiapi import Code
from vscsihba.vscsiapi.session import SESSIONS

LONG = bytes((0x7F, 0, 0, 0, 0, 0, 0, 0x18, 0xF0, 0, *range(22)))
BUFFER = 1 << 20


def test_structure_is_the_originals() -> None:
    names = [name for name, *_ in api.user_scsitap_task._fields_]
    assert ",".join(names) == (
        "cmd_number,type,direction,lun,cdblen,cdb,request_bufflen,request_buffer,status,session"
    )
    structure = api.user_scsitap_task
    # gcc's offsets for the original's header on x86-64.
    assert [getattr(structure, name).offset for name in names] == [0, 4, 5, 8, 12, 13, 32, 40, 48, 52]
    assert ctypes.sizeof(structure) == 56


def test_codes_say_what_the_originals_said() -> None:
    assert (Code.OK, Code.NOTHING) == (0, 1)
    assert all(code < 0 for code in Code if code not in (Code.OK, Code.NOTHING))
    assert len(set(Code)) == 8


# register_scsi_host


def test_register_gives_a_structure_with_a_session_that_can_be_polled(host: Host) -> None:
    def readable() -> bool:
        return bool(select.select([host.task.session], [], [], 0)[0])

    assert api.get_scsi_task(host.task) == Code.NOTHING
    assert not readable()
    host.loopback.submit(TEST_UNIT_READY)
    assert readable()
    assert api.get_scsi_task(host.task) == Code.OK
    assert api.get_scsi_task(host.task) == Code.NOTHING
    assert not readable()


@pytest.mark.parametrize(
    ("devname", "arguments", "error"),
    [
        ("/dev/sda", {}, "'/dev/sda' is not an HBA"),
        ("/dev/vscsihba", {}, "is not an HBA"),
        ("/dev/vscsihba0x", {}, "is not an HBA"),
        (None, {}, "is not an HBA"),
        ("/dev/vscsihba0", {"sizes": "much"}, "is not a size"),
        ("/dev/vscsihba0", {"sizes": ["1MiB", 513]}, "not a multiple"),
        ("/dev/vscsihba0", {"sizes": [None]}, "needs either a size"),
        ("/dev/vscsihba0", {"sizes": 1.5}, "not iterable"),
        ("/dev/vscsihba0", {"block_size": 3}, "block size 3"),
        ("/dev/vscsihba0", {"wait": -1}, "a wait of -1 seconds"),
        ("/dev/vscsihba0", {"wait": "long"}, "not supported"),
    ],
)
def test_register_gives_none_and_says_why(devname: str, arguments: dict[str, int], error: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    port = LoopbackPort()
    assert api.register_scsi_host(devname, port=port, **arguments) is None  # type: ignore[arg-type]
    assert error in api.last_error()
    assert port.loopbacks == {}
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_register_gives_none_where_the_machine_refuses() -> None:
    class Refusing(LoopbackPort):
        def open(self) -> None:
            raise HostError("no module")

    assert api.register_scsi_host("/dev/vscsihba0", port=Refusing()) is None
    assert api.last_error() == "no module"


@pytest.mark.parametrize("sizes", ["1MiB", 1 << 20, ["1MiB", 1 << 20], {5: "1MiB"}])
@pytest.mark.parametrize("devname", ["/dev/vscsihba7", b"/dev/vscsihba7", "vscsihba7"])
def test_register_takes_sizes_and_names_of_many_kinds(devname: str, sizes: str) -> None:
    port = LoopbackPort()
    task = api.register_scsi_host(devname, sizes=sizes, port=port)
    assert task is not None
    assert sorted(port.loopbacks) == {"<class 'list'>": [0, 1], "<class 'dict'>": [5]}.get(
        str(type(sizes)), [0]
    )
    assert api.unregister_scsi_host(task) == Code.OK


# get_scsi_task


def test_get_fills_in_every_field(host: Host) -> None:
    host.send(READ, data_in=512)
    task = host.task
    assert (task.type, task.direction, task.lun) == (api.TASK_COMMAND, api.SCSI_DATA_READ, 0)
    assert (task.cdblen, bytes(task.cdb)) == (10, READ + bytes(6))
    assert (task.request_bufflen, task.status) == (512, 0)
    assert task.cmd_number > 0
    assert task.request_buffer


@pytest.mark.parametrize(
    ("cdb", "data_out", "data_in", "direction"),
    [
        (TEST_UNIT_READY, b"", 0, "I"),
        (READ, b"", 512, "I"),
        (WRITE, bytes(512), 0, "O"),
        (WRITE, b"", 0, "I"),
        (VENDOR, b"", 512, "I"),
    ],
)
def test_direction_is_the_originals_letter(
    cdb: bytes, data_out: bytes, data_in: int, direction: str, host: Host
) -> None:
    host.send(cdb, data_out=data_out, data_in=data_in)
    assert chr(host.task.direction) == direction


def test_get_waits_as_long_as_register_said() -> None:
    host = Host(wait=None)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(api.get_scsi_task(host.task)))
    thread.start()
    host.loopback.submit(TEST_UNIT_READY)
    thread.join(10)
    assert results == [Code.OK]
    api.unregister_scsi_host(host.task)


def test_get_makes_room_for_a_large_command(host: Host) -> None:
    host.send(READ, data_in=BUFFER + 512)
    assert api.set_data(host.task, b"z" * (BUFFER + 512)) == Code.OK
    assert api.complete_scsi_task(host.task) == Code.OK


def test_several_commands_may_be_in_hand_each_in_a_structure_of_its_own(host: Host) -> None:
    first = host.send(READ, data_in=512)
    other = api.user_scsitap_task(session=host.task.session)
    second = host.loopback.submit(READ, data_in=512)
    assert api.get_scsi_task(other) == Code.OK
    assert other.cmd_number != host.task.cmd_number
    api.set_data(other, b"b" * 512)
    api.set_data(host.task, b"a" * 512)
    assert api.complete_scsi_task(other) == Code.OK
    assert api.complete_scsi_task(host.task) == Code.OK
    assert (host.answer(first).data, host.answer(second).data) == (b"a" * 512, b"b" * 512)


def test_get_refuses_a_foreign_buffer_before_it_takes_a_command(host: Host) -> None:
    sent = host.loopback.submit(READ, data_in=512)
    task = api.user_scsitap_task(session=host.task.session)
    task.request_buffer = pointer_to((ctypes.c_ubyte * 4096)())
    assert api.get_scsi_task(task) == Code.BAD_BUFFER
    assert api.get_scsi_task(host.task) == Code.OK
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).status == 0


def test_get_fails_once_for_a_lun_that_is_gone(host: Host) -> None:
    host.loopback.remove()
    assert api.get_scsi_task(host.task) == Code.FAILED
    assert "was removed" in api.last_error()
    assert api.get_scsi_task(host.task) == Code.NOTHING


# receive_scsi_data


def test_receive_brings_what_the_initiator_writes(host: Host) -> None:
    sent = host.send(WRITE, data_out=b"w" * 512)
    assert api.receive_scsi_data(host.task) == Code.OK
    assert bytes(host.task.request_buffer[:512]) == b"w" * 512
    assert api.get_data(host.task) == b"w" * 512
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).status == 0


def test_receive_has_nothing_for_a_command_that_reads(host: Host) -> None:
    host.send(READ, data_in=512)
    assert api.receive_scsi_data(host.task) == Code.NOTHING


def test_receive_goes_by_the_direction_that_the_caller_sets(host: Host) -> None:
    """The ring does not contain the direction of a vendor specific command."""
    host.send(VENDOR, data_out=b"v" * 512)
    host.task.direction = api.SCSI_DATA_WRITE
    assert api.receive_scsi_data(host.task) == Code.OK
    assert api.get_data(host.task) == b"v" * 512


def test_receive_brings_no_more_than_request_bufflen(host: Host) -> None:
    host.send(WRITE, data_out=b"w" * 512)
    ctypes.memset(host.task.request_buffer, 0, 512)
    host.task.request_bufflen = 3
    assert api.receive_scsi_data(host.task) == Code.OK
    assert bytes(host.task.request_buffer[:5]) == b"www\0\0"


def test_receive_refuses_a_foreign_buffer(host: Host) -> None:
    host.send(WRITE, data_out=b"w" * 512)
    mine = (ctypes.c_ubyte * 512)()
    ours, host.task.request_buffer = host.task.request_buffer, pointer_to(mine)
    assert api.receive_scsi_data(host.task) == Code.BAD_BUFFER
    assert bytes(mine) == bytes(512)
    host.task.request_buffer = ours
    host.task.request_bufflen = BUFFER + 1
    assert api.receive_scsi_data(host.task) == Code.BAD_BUFFER
    host.task.request_bufflen = -1
    assert api.receive_scsi_data(host.task) == Code.BAD_BUFFER


# complete_scsi_task


def test_complete_sends_data_in(host: Host) -> None:
    sent = host.send(INQUIRY, data_in=96)
    ctypes.memmove(host.task.request_buffer, b"hello", 5)
    host.task.request_bufflen = 5
    assert api.complete_scsi_task(host.task) == Code.OK
    answer = host.answer(sent)
    assert (answer.status, answer.data, answer.residual) == (0, b"hello", 91)


def test_complete_sends_no_more_than_was_asked_for(host: Host) -> None:
    sent = host.send(INQUIRY, data_in=4)
    host.task.request_bufflen = 96
    assert api.complete_scsi_task(host.task) == Code.OK
    assert len(host.answer(sent).data) == 4


@pytest.mark.parametrize("status", [0x04, 0x08, 0x18, 0x28, 0x40])
def test_complete_sends_the_status(status: int, host: Host) -> None:
    sent = host.send(TEST_UNIT_READY)
    host.task.status = status
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).status == status


def test_check_condition_by_itself_says_unknown_command_and_sends_no_data(host: Host) -> None:
    sent = host.send(READ, data_in=512)
    host.task.status = CHECK_CONDITION
    assert api.complete_scsi_task(host.task) == Code.OK
    answer = host.answer(sent)
    assert (answer.status, answer.data, key(answer)) == (CHECK_CONDITION, b"", (5, 0x2000))


@pytest.mark.parametrize("cdb", [READ, WRITE])
def test_sense_data_in_the_buffer_is_the_originals_way(cdb: bytes, host: Host) -> None:
    sent = host.send(cdb, data_in=512)
    ctypes.memmove(host.task.request_buffer, bytes((0x70, 0, 3, *bytes(9), 0x11, 1)), 14)
    host.task.request_bufflen = 14
    host.task.status = api.SENSE_IN_BUFFER | CHECK_CONDITION
    assert api.complete_scsi_task(host.task) == Code.OK
    assert key(host.answer(sent)) == (3, 0x1101)


def test_sense_data_of_no_length_is_14_bytes(host: Host) -> None:
    sent = host.send(TEST_UNIT_READY)
    ctypes.memmove(host.task.request_buffer, bytes((0x70, 0, 2, *bytes(9), 0x3A, 0, 7)), 15)
    host.task.status = 0x82
    assert api.complete_scsi_task(host.task) == Code.OK
    answer = host.answer(sent)
    assert key(answer) == (2, 0x3A00)
    assert answer.sense[14:] == bytes(82)


@pytest.mark.parametrize("status", [1, -1, 0x80, 0x88, 256, 0x7FFFFFFF])
def test_complete_refuses_what_is_no_status(status: int, host: Host) -> None:
    sent = host.send(TEST_UNIT_READY)
    host.task.status = status
    assert api.complete_scsi_task(host.task) == Code.BAD_STATUS
    host.task.status = 0
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).status == 0


def test_complete_refuses_a_foreign_buffer(host: Host) -> None:
    sent = host.send(READ, data_in=512)
    ours = host.task.request_buffer
    for pointer, length in [
        (pointer_to(8), 512),
        (pointer_to(0), 512),
        (pointer_to((ctypes.c_ubyte * 512)()), 512),
        (ours, BUFFER + 1),
        (ours, -1),
    ]:
        host.task.request_buffer, host.task.request_bufflen = pointer, length
        assert api.complete_scsi_task(host.task) == Code.BAD_BUFFER
    host.task.request_buffer, host.task.request_bufflen = ours, 0
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).data.strip(b"\0") == b""


def test_a_pointer_into_the_buffer_is_good(host: Host) -> None:
    sent = host.send(READ, data_in=4)
    ctypes.memmove(host.task.request_buffer, b"......data", 10)
    host.task.request_buffer = pointer_to(ctypes.addressof(host.task.request_buffer.contents) + 6)
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).data == b"data"


def test_a_buffer_lives_as_long_as_its_structure(host: Host) -> None:
    host.send(READ, data_in=4)
    ours = host.task.request_buffer
    host.task.request_buffer = pointer_to(0)
    assert api.get_scsi_task(host.task) == Code.NOTHING, "a get gives a new one"
    assert api.set_data(host.task, b"new.") == Code.OK
    ours[0] = 1
    host.task.request_buffer = ours
    assert api.set_data(host.task, b"old.") == Code.OK
    assert api.complete_scsi_task(host.task) == Code.OK


def test_a_buffer_goes_with_its_structure(host: Host) -> None:
    task = api.user_scsitap_task(session=host.task.session)
    assert api.get_scsi_task(task) == Code.NOTHING
    address = ctypes.addressof(task.request_buffer.contents)
    del task
    host.send(READ, data_in=4)
    host.task.request_buffer = pointer_to(address)
    assert api.complete_scsi_task(host.task) == Code.BAD_BUFFER


def test_structures_may_stand_in_an_array(host: Host) -> None:
    tasks = (api.user_scsitap_task * 4)()
    sent = [host.loopback.submit(READ, data_in=4) for _ in tasks]
    for index in range(4):
        tasks[index].session = host.task.session
        assert api.get_scsi_task(tasks[index]) == Code.OK
        assert api.set_data(tasks[index], b"%04d" % index) == Code.OK
    for task in tasks:
        assert api.complete_scsi_task(task) == Code.OK
    assert [host.answer(each).data for each in sent] == [b"0000", b"0001", b"0002", b"0003"]


def test_a_finished_task_is_not_open(host: Host) -> None:
    host.send(WRITE, data_out=bytes(512))
    assert api.complete_scsi_task(host.task) == Code.OK
    assert api.complete_scsi_task(host.task) == Code.NOT_OPEN
    assert api.receive_scsi_data(host.task) == Code.NOT_OPEN
    assert api.get_cdb(host.task) == b""
    assert not host.loopback.broken


def test_a_task_that_is_refused_meanwhile_is_not_open(host: Host) -> None:
    """Another thread detaches between the look-up of a command and the use of its memory."""
    for cdb, call in ((WRITE, api.receive_scsi_data), (READ, api.complete_scsi_task)):
        host.send(cdb, data_out=b"" if cdb is READ else bytes(512), data_in=512)
        command = SESSIONS[host.task.session].open[host.task.cmd_number]
        assert isinstance(command, Task)
        command.buffer.views[0].release()
        assert call(host.task) == Code.NOT_OPEN


def test_a_session_that_is_closed_meanwhile_is_no_crash(host: Host) -> None:
    host.send(TEST_UNIT_READY)
    SESSIONS[host.task.session].hba.close()
    assert api.complete_scsi_task(host.task) == Code.FAILED
    assert "is not open" in api.last_error()
    assert api.get_scsi_task(host.task) == Code.BAD_SESSION


def test_data_goes_with_good_only(host: Host) -> None:
    sent = host.send(READ, data_in=512)
    api.set_data(host.task, b"secret")
    host.task.status = 8
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).data.strip(b"\0") == b""


def test_a_program_that_just_ends_detaches() -> None:
    program = """
from vscsihba import vscsiapi as api
from vscsihba.hba import LoopbackPort
class Port(LoopbackPort):
    def close(self):
        print("closed", flush=True)
task = api.register_scsi_host("/dev/vscsihba0", port=Port())
other = api.register_scsi_host("/dev/vscsihba1", port=LoopbackPort())
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("closed\n", "")


def test_complete_fails_where_the_ring_is_gone(host: Host) -> None:
    host.send(TEST_UNIT_READY)
    host.loopback.remove()
    assert api.complete_scsi_task(host.task) == Code.FAILED
    assert api.complete_scsi_task(host.task) == Code.NOT_OPEN


# stop_scsi_host, unregister_scsi_host


def test_stop_goes_on_until_everything_is_detached() -> None:
    host = Host(wait=None)
    assert api.stop_scsi_host(host.task) == Code.OK
    assert api.get_scsi_task(host.task) == Code.BAD_SESSION
    assert api.stop_scsi_host(host.task) == Code.BAD_SESSION


def test_a_closed_session_is_refused_by_every_call() -> None:
    host = Host()
    host.send(READ, data_in=512)
    assert api.unregister_scsi_host(host.task) == Code.OK
    for call in CALLS:
        assert call(host.task) == Code.BAD_SESSION
    assert "is not registered" in api.last_error()


def test_a_task_of_another_session_is_not_open(host: Host) -> None:
    other = Host()
    other.send(READ, data_in=512)
    mixed = api.user_scsitap_task(session=host.task.session, cmd_number=other.task.cmd_number)
    assert api.complete_scsi_task(mixed) == Code.NOT_OPEN
    assert api.complete_scsi_task(other.task) == Code.OK
    api.unregister_scsi_host(other.task)


def test_a_buffer_of_another_session_is_refused(host: Host) -> None:
    other = Host()
    host.send(READ, data_in=512)
    host.task.request_buffer = other.task.request_buffer
    assert api.complete_scsi_task(host.task) == Code.BAD_BUFFER
    api.unregister_scsi_host(other.task)


def test_a_structure_of_a_closed_session_never_matches_the_next() -> None:
    first = Host()
    first.send(READ, data_in=512)
    api.unregister_scsi_host(first.task)
    second = Host()
    second.send(READ, data_in=512)
    first.task.session = second.task.session
    assert api.complete_scsi_task(first.task) == Code.NOT_OPEN
    api.unregister_scsi_host(second.task)


def test_unregister_fails_where_the_kernel_refuses() -> None:
    class Stubborn(LoopbackPort):
        def close(self) -> None:
            raise HostError("it stays")

    task = api.register_scsi_host("/dev/vscsihba0", port=Stubborn())
    assert task is not None
    assert api.unregister_scsi_host(task) == Code.FAILED
    assert api.last_error() == "it stays"


CALLS = (
    api.get_scsi_task,
    api.receive_scsi_data,
    api.complete_scsi_task,
    api.stop_scsi_host,
    api.unregister_scsi_host,
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("argument", [None, 0, "task", b"", object(), ctypes.c_int(3)])
def test_what_is_no_structure_is_a_bad_task(call: api.return_codes.Call, argument: object) -> None:
    assert call(argument) == Code.BAD_TASK  # type: ignore[arg-type]
    assert "is not a user_scsitap_task" in api.last_error()


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_structure_has_no_session(call: api.return_codes.Call) -> None:
    assert call(api.user_scsitap_task()) == Code.BAD_SESSION
    assert call(api.user_scsitap_task(session=-1)) == Code.BAD_SESSION


# Beyond the structure.


def test_management_comes_as_a_task_of_its_own_type(host: Host) -> None:
    sent = host.send(READ, data_in=512)
    other = api.user_scsitap_task(session=host.task.session)
    host.loopback.manage(1, [sent])
    assert api.get_scsi_task(other) == Code.OK
    assert (chr(other.type), other.request_bufflen, bytes(other.cdb)) == ("M", 0, bytes(16))
    assert api.get_management(other) == ("ABORT TASK", (host.task.cmd_number,))
    assert api.get_management(host.task) is None
    assert api.get_cdb(other) == bytes(6)
    assert api.receive_scsi_data(other) == Code.NOTHING
    assert api.complete_scsi_task(other) == Code.OK
    assert api.get_management(other) is None
    assert api.complete_scsi_task(host.task) == Code.OK


def test_long_cdbs(host: Host) -> None:
    host.send(LONG)
    assert (host.task.cdblen, bytes(host.task.cdb)) == (32, LONG[:16])
    assert api.get_cdb(host.task) == LONG


def test_set_sense(host: Host) -> None:
    sent = host.send(TEST_UNIT_READY)
    assert api.set_sense(host.task, bytes((0x72, 6, 0x29, 0, *bytes(4)))) == Code.OK
    assert host.task.status == 0x82
    assert api.complete_scsi_task(host.task) == Code.OK
    assert host.answer(sent).sense[:4] == bytes((0x72, 6, 0x29, 0))


def test_set_data_is_cut_to_what_was_asked_for(host: Host) -> None:
    host.send(READ, data_in=4)
    assert api.set_data(host.task, b"too long") == Code.OK
    assert api.get_data(host.task) == b"too "


def test_helpers_refuse_what_the_calls_refuse(host: Host) -> None:
    stranger = api.user_scsitap_task(session=host.task.session, request_bufflen=4)
    stranger.request_buffer = pointer_to((ctypes.c_ubyte * 4)())
    assert api.set_data(stranger, b"data") == Code.BAD_BUFFER
    assert api.set_sense(stranger, b"data") == Code.BAD_BUFFER
    assert api.get_data(stranger) == b""
    nobody = api.user_scsitap_task(session=-1)
    assert api.set_data(nobody, b"data") == Code.BAD_SESSION
    assert api.set_sense(nobody, b"data") == Code.BAD_SESSION
    assert (api.get_data(nobody), api.get_cdb(nobody)) == (b"", b"")
    assert api.get_management(nobody) is None
    assert api.get_device(nobody, 0) is None


def test_no_disk_inside_this_process(host: Host) -> None:
    assert api.get_device(host.task, 0) is None
    assert api.get_device(host.task, 9) is None
