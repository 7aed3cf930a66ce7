"""Any value in any field, in any order: the call returns a code, and memory and ring stay intact."""

import ctypes

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.hba.rig import READ, TEST_UNIT_READY, WRITE
from tests.vscsiapi.conftest import Host, pointer_to
from vscsihba import vscsiapi as api
from vscsihba.vscsiapi import Code

_INTS = st.integers(-(1 << 31), (1 << 31) - 1)
_CALLS = st.sampled_from([api.get_scsi_task, api.receive_scsi_data, api.complete_scsi_task])
_FOREIGN = (ctypes.c_ubyte * 64)()


@given(st.binary(min_size=56, max_size=56), _CALLS)
def test_any_bytes_as_a_structure_get_a_code(content: bytes, call: api.return_codes.Call) -> None:
    task = api.user_scsitap_task.from_buffer_copy(content)
    assert call(task) == Code.BAD_SESSION


class Misuse(RuleBasedStateMachine):
    """One session and three structures with arbitrary content."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host({0: 1 << 20})
        session = self.host.task.session
        self.tasks = [self.host.task, *(api.user_scsitap_task(session=session) for _ in range(2))]

    @rule(cdb=st.sampled_from([READ, WRITE, TEST_UNIT_READY]), length=st.integers(0, 5000))
    def send(self, cdb: bytes, length: int) -> None:
        if self.host.loopback.outstanding < 20:
            self.host.loopback.submit(cdb, data_in=length)

    @rule(index=st.integers(0, 2), call=_CALLS)
    def call(self, index: int, call: api.return_codes.Call) -> None:
        assert call(self.tasks[index]) in set(Code)

    @rule(index=st.integers(0, 2), number=st.integers(0, 300))
    def forge_number(self, index: int, number: int) -> None:
        self.tasks[index].cmd_number = number

    @rule(index=st.integers(0, 2), other=st.integers(0, 2))
    def take_anothers_number(self, index: int, other: int) -> None:
        self.tasks[index].cmd_number = self.tasks[other].cmd_number

    @rule(index=st.integers(0, 2), length=_INTS)
    def forge_length(self, index: int, length: int) -> None:
        self.tasks[index].request_bufflen = length

    @rule(index=st.integers(0, 2), status=_INTS)
    def forge_status(self, index: int, status: int) -> None:
        self.tasks[index].status = status

    @rule(index=st.integers(0, 2), direction=st.integers(0, 255))
    def forge_direction(self, index: int, direction: int) -> None:
        self.tasks[index].direction = direction

    @rule(index=st.integers(0, 2), address=st.integers(0, (1 << 47) - 1))
    def forge_pointer(self, index: int, address: int) -> None:
        self.tasks[index].request_buffer = pointer_to(address)

    @rule(index=st.integers(0, 2))
    def point_at_foreign_memory(self, index: int) -> None:
        self.tasks[index].request_buffer = pointer_to(_FOREIGN)

    @rule(index=st.integers(0, 2))
    def ask_for_a_new_buffer(self, index: int) -> None:
        self.tasks[index].request_buffer = pointer_to(0)

    def teardown(self) -> None:
        loopback = self.host.loopback
        assert not loopback.broken
        session = api.user_scsitap_task(session=self.host.task.session)
        assert api.unregister_scsi_host(session) == Code.OK
        assert loopback.outstanding == 0, "everything is answered in the end"
        assert bytes(_FOREIGN) == bytes(64), "foreign memory is not touched"


TestMisuse = Misuse.TestCase
