"""The HBA as a whole: raw LUNs, LUNs of handlers, links, and the end."""

import select
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hba.rig import (
    CHECK_CONDITION,
    INQUIRY,
    READ,
    SYNCHRONIZE_CACHE,
    TEST_UNIT_READY,
    WRITE,
    AskingPort,
    key,
    serving,
)
from vscsihba.errors import ConfigError, HostError, TransportError, UsageError
from vscsihba.handlers.stack import build
from vscsihba.hba import LoopbackPort, Lun, Management, Task, VirtualHba, loopback_port
from vscsihba.scsi import Asc

LEFT = (5, 0x2500)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_raw_lun_is_answered_by_the_caller() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="64MiB")
        tag = port.loopbacks[0].submit(INQUIRY, data_in=96)
        task = hba.next_task(10)
        assert task is not None
        assert (task.lun, task.cdb, task.buffer.length) == (0, INQUIRY, 96)
        task.buffer.scatter(b"hello")
        task.complete(data_in=5)
        answer = port.loopbacks[0].wait(tag)
        assert (answer.status, answer.data, answer.residual) == (0, b"hello", 91)


def test_data_out_is_in_the_buffer() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(3, size=1 << 20)
        port.loopbacks[3].submit(WRITE, data_out=b"x" * 512)
        task = hba.next_task(10)
        assert task is not None
        assert task.buffer.gather() == b"x" * 512
        task.complete()


def test_handler_lun_is_served_without_the_caller(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"ab" * 256 + bytes(512 * 15))
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        lun = hba.add_lun(1, handler=str(tmp_path / "a.img"))
        assert lun.geometry.size == 8192
        assert port.run(1, READ, data_in=512).data == b"ab" * 256
        assert port.run(1, WRITE, data_out=b"cd" * 256).status == 0
        assert hba.next_task(0) is None
    assert (tmp_path / "a.img").read_bytes()[:4] == b"cdcd"


def test_raw_and_handler_luns_side_by_side() -> None:
    port = AskingPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        hba.add_lun(1, handler={"handler": "memory", "size": "1MiB"})
        with serving(hba):
            for lun in hba.luns.values():
                lun.linked.result(10)
            assert port.run(0, INQUIRY, data_in=96).data[8:16] == b"VSCSIHBA"
            assert port.run(1, READ, data_in=512).data == bytes(512)
    assert port.closed
    assert not port.loopbacks


def test_a_lun_goes_while_the_others_are_in_use_and_its_number_is_free_again() -> None:
    port = AskingPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        hba.add_lun(1, handler={"handler": "memory", "size": "1MiB"})
        with serving(hba):
            for number in (0, 1):
                hba.luns[number].linked.result(10)
                gone = hba.remove_lun(number)
                gone.wait_until_gone(10)
                assert port.answers.pop(SYNCHRONIZE_CACHE[0]).status == 0, "it was flushed"
                assert gone.device is None
                assert list(hba.luns) == list(port.loopbacks) == [1 - number]
                again = hba.add_lun(number, handler={"handler": "memory", "size": "2MiB"})
                again.linked.result(10)
                assert port.run(number, READ, data_in=512).status == 0
    assert not port.loopbacks


def test_removing_a_lun_waits_for_its_caller_but_does_not_hold_him_up() -> None:
    port = AskingPort()
    with VirtualHba(0, port=port) as hba:
        lun = hba.add_lun(0, size="1MiB")
        linking = hba.next_task(10)
        assert linking is not None
        linking.answer_as()
        lun.linked.result(10)
        assert hba.remove_lun(0) is hba.remove_lun(0) is lun, "twice is once"
        flush = hba.next_task(10)
        assert flush is not None
        assert flush.cdb == SYNCHRONIZE_CACHE
        with pytest.raises(HostError, match="LUN 0 still exists after 0 s"):
            lun.wait_until_gone(0)
        with pytest.raises(UsageError, match="LUN 0 exists already"):
            hba.add_lun(0, size="1MiB")
        flush.answer_as()
        lun.wait_until_gone(10)
        assert not hba.detached
        with pytest.raises(UsageError, match="there is no LUN 0"):
            hba.remove_lun(0)


def test_a_lun_that_the_kernel_does_not_let_go_of_is_told() -> None:
    class Refusing(LoopbackPort):
        def unlink(self, lun: int, *, served: bool) -> None:
            raise HostError("the port refuses")

    with VirtualHba(0, port=Refusing()) as hba:
        lun = hba.add_lun(0, handler={"handler": "memory", "size": "1MiB"})
        lun.linked.result(10)
        hba.remove_lun(0)
        with pytest.raises(HostError, match="the port refuses"):
            lun.wait_until_gone(10)
        assert 0 in hba.luns, "its number is not free"
    with pytest.raises(TransportError, match="HBA 0 is not running"):
        hba.remove_lun(0)


def test_handler_luns_know_each_other_as_copies_need_it() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        units = [hba.add_lun(n, handler={"handler": "memory", "size": "1MiB"}).unit for n in (0, 1)]
        port.run(1, TEST_UNIT_READY)
        port.run(0, TEST_UNIT_READY)
        assert set(units[0].hba_units.values()) == set(units)


def test_linking_waits_for_the_caller_and_not_the_other_way() -> None:
    port = AskingPort()
    with VirtualHba(0, port=port) as hba:
        luns = [hba.add_lun(number, size="1MiB") for number in range(3)]
        asked = [hba.next_task(10) for _ in range(1)]
        assert [task.lun for task in asked if task] == [0], "one at a time"
        assert not any(lun.linked.done() for lun in luns)
        for task in asked:
            assert task
            task.answer_as()
        luns[0].linked.result(10)
        assert port.answers[0x12].status == 0


def test_a_link_that_fails_is_told_once_and_the_rest_goes_on() -> None:
    port = AskingPort()
    port.refuses = True
    with VirtualHba(0, port=port) as hba:
        lun = hba.add_lun(0, size="1MiB")
        with pytest.raises(HostError, match="the port refuses"):
            hba.next_task(10)
        with pytest.raises(HostError, match="the port refuses"):
            lun.wait_for_disk(10)
        assert hba.next_task(0) is None
        assert lun.device is None
    assert port.answers == {}, "what was not linked is not unlinked"


def test_a_link_thread_that_dies_is_an_error_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    port = AskingPort()

    def fail(_lun: int) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(port, "link", fail)
    hba = VirtualHba(0, port=port)
    hba.__enter__()
    hba.add_lun(0, size="1MiB")
    assert hba.next_task(60) is None
    with pytest.raises(TransportError, match="internal error: KeyError"):
        hba.close()
    assert hba.detached


def test_an_hba_in_this_process_has_no_disks() -> None:
    with VirtualHba(0, port=LoopbackPort()) as hba:
        lun = hba.add_lun(0, size="1MiB")
        with pytest.raises(HostError, match="has no disks"):
            hba.wait_for_disk(0)
        assert lun.device is None


def test_waiting_for_a_disk_that_nobody_answers_for_ends() -> None:
    with VirtualHba(0, port=AskingPort()) as hba:
        lun = hba.add_lun(0, size="1MiB")
        with pytest.raises(HostError, match=r"not linked after 0\.01 s; answer the commands of its HBA"):
            lun.wait_for_disk(0.01)


def test_a_disk_is_told_of() -> None:
    class WithDisk(AskingPort):
        def disk(self, lun: int, timeout: float) -> Path:
            return Path(f"/dev/sd{lun}")

    told: list[tuple[Lun, Path]] = []
    heard = threading.Event()

    def note(lun: Lun, disk: Path) -> None:
        told.append((lun, disk))
        heard.set()

    with VirtualHba(0, port=WithDisk(), on_ready=note) as hba:
        lun = hba.add_lun(4, size="1MiB")
        with serving(hba):
            assert heard.wait(10)
            assert lun.device == Path("/dev/sd4")
    assert told == [(lun, Path("/dev/sd4"))]


# The end.


def test_stop_lets_the_caller_answer_to_the_last() -> None:
    port = AskingPort()
    seen: list[int] = []
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        for task in hba.tasks():
            seen.append(task.cdb[0])
            task.complete()
            hba.stop()
            hba.stop()
        assert hba.detached
        assert hba.next_task() is None
    assert seen == [0x12, 0x35]
    assert port.answers[0x35].status == 0


def test_leaving_refuses_what_is_open_and_what_comes() -> None:
    port = AskingPort()
    with VirtualHba(0, port=port) as hba:
        lun = hba.add_lun(0, size="1MiB")
        inquiry = hba.next_task(10)
        assert inquiry
        inquiry.answer_as()
        lun.linked.result(10)
        loopback = port.loopbacks[0]
        tags = [loopback.submit(READ, data_in=512) for _ in range(3)]
        kept = hba.next_task(10)
    assert kept
    assert kept.done
    assert {key(loopback.answers[tag]) for tag in tags} == {LEFT}
    assert key(port.answers[SYNCHRONIZE_CACHE[0]]) == LEFT
    with pytest.raises(TransportError, match="is not open"):
        kept.complete()
    assert hba.next_task() is None
    assert list(hba.tasks()) == []


def test_leaving_by_an_exception_detaches_too() -> None:
    port = AskingPort()
    hba = VirtualHba(0, port=port)

    def fail() -> None:
        hba.add_lun(0, size="1MiB")
        hba.add_lun(1, handler={"handler": "memory", "size": "1MiB"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), hba:
        fail()
    assert port.closed
    assert not port.loopbacks


def test_threads_that_wait_are_woken() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        results: list[Task | None] = []
        threads = [threading.Thread(target=lambda: results.append(hba.next_task())) for _ in range(4)]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [None] * 4


def test_closing_twice_is_harmless() -> None:
    hba = VirtualHba(0, port=LoopbackPort())
    with hba:
        hba.add_lun(0, size="1MiB")
    hba.close()
    hba.stop()
    VirtualHba(0, port=LoopbackPort()).close()


def test_nothing_is_left_after_many_lives() -> None:
    def live() -> None:
        with VirtualHba(0, port=AskingPort()) as hba:
            hba.add_lun(0, size="1MiB")
            hba.add_lun(1, handler={"handler": "memory", "size": "1MiB"})
            with serving(hba):
                hba.luns[1].linked.result(10)

    live()
    before, threads = open_descriptors(), threading.active_count()
    for _ in range(20):
        live()
    assert open_descriptors() == before
    assert threading.active_count() == threads


def test_a_step_down_that_fails_is_raised_and_the_others_are_taken() -> None:
    class Stubborn(LoopbackPort):
        closed = False

        def unlink(self, lun: int, *, served: bool) -> None:
            raise HostError(f"LUN {lun} stays")

        def close(self) -> None:
            self.closed = True

    port = Stubborn()
    with pytest.raises(HostError, match="LUN 0 stays"), VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB").linked.result(10)
    assert port.closed
    assert not port.loopbacks


def test_a_port_that_does_not_open_leaves_nothing() -> None:
    class Closed(LoopbackPort):
        def open(self) -> None:
            raise HostError("no kernel here")

    before = open_descriptors()
    with pytest.raises(HostError, match="no kernel here"), VirtualHba(0, port=Closed()):
        pass
    assert open_descriptors() == before


# Waiting.


def test_the_descriptor_is_readable_while_there_is_a_task() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        hba.add_lun(1, size="1MiB")

        def readable() -> bool:
            return bool(select.select([hba], [], [], 0)[0])

        assert hba.next_task(0) is None
        assert not readable()
        for lun in (0, 0, 1):
            port.loopbacks[lun].submit(TEST_UNIT_READY)
        for _ in range(3):
            assert readable()
            task = hba.next_task(0)
            assert task
            task.complete()
        assert hba.next_task(0) is None
        assert not readable()


def test_next_task_waits_no_longer_than_it_was_told() -> None:
    with VirtualHba(0, port=LoopbackPort()) as hba:
        assert hba.next_task(0.01) is None
        assert hba.next_task(0) is None


def test_many_threads_share_the_tasks_of_many_luns() -> None:
    port = LoopbackPort()
    with ExitStack() as threads, VirtualHba(0, port=port) as hba:
        for number in range(3):
            hba.add_lun(number, size="1MiB")

        def echo(task: Task) -> None:
            task.buffer.scatter(task.cdb[2:6])
            task.complete(data_in=4)

        def initiate(lun: int) -> None:
            for number in range(200):
                cdb = bytes((0x28, 0, *number.to_bytes(4, "big"), 0, 0, 1, 0))
                assert port.run(lun, cdb, data_in=512).data == number.to_bytes(4, "big")

        for _ in range(4):
            threads.enter_context(serving(hba, echo))
        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(initiate, lun) for lun in (0, 1, 2, 0, 1, 2)]:
                done.result(60)
        threads.close()
        assert not any(loopback.broken or loopback.outstanding for loopback in port.loopbacks.values())


# Trouble.


def test_a_lun_whose_device_goes_is_told_once_and_the_others_go_on() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        hba.add_lun(1, size="1MiB")
        port.loopbacks[0].remove()
        with pytest.raises(TransportError, match="was removed"):
            hba.next_task(10)
        port.loopbacks[1].submit(TEST_UNIT_READY)
        task = hba.next_task(10)
        assert task
        task.complete()


def test_completing_on_a_device_that_is_gone_says_so() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        port.loopbacks[0].submit(TEST_UNIT_READY)
        task = hba.next_task(10)
        assert task
        port.loopbacks[0].remove()
        with pytest.raises(TransportError, match="was removed"):
            task.complete()


def test_leaving_with_a_device_that_is_gone_is_no_error() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        port.loopbacks[0].submit(TEST_UNIT_READY)
        assert hba.next_task(10)
        port.loopbacks[0].remove()
    assert not port.loopbacks


def test_a_lun_that_cannot_be_served_is_unlinked_as_such() -> None:
    class Noting(LoopbackPort):
        served: bool | None = None

        def unlink(self, lun: int, *, served: bool) -> None:
            self.served = served

    port = Noting()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB").linked.result(10)
        port.loopbacks[0].remove()
        with pytest.raises(TransportError, match="was removed"):
            hba.next_task(10)
    assert port.served is False


def test_a_handler_lun_whose_device_goes_is_told() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, handler={"handler": "memory", "size": "1MiB"})
        port.loopbacks[0].remove()
        with pytest.raises(TransportError, match="was removed"):
            hba.next_task(10)


def test_a_serving_thread_that_dies_is_told_for_every_handler_lun(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(loopback_port, "_PATIENCE", 0.0)
    with VirtualHba(0, port=AskingPort()) as hba:
        for number in range(2):
            hba.add_lun(number, handler={"handler": "memory", "size": "1MiB"}).linked.result(60)
        assert hba._luns._pump is not None
        hba._luns._pump.calls.post(leave)
        for number in range(2):
            with pytest.raises(TransportError, match=f"lun {number}: internal error: SystemExit"):
                hba.next_task(60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a size or a handler"),
        ({"size": "1MiB", "handler": "a.img"}, "either a size or a handler"),
        ({"size": "a lot"}, "is not a size"),
        ({"size": -1}, "is not a size"),
        ({"size": 0}, "the size is 0"),
        ({"size": 513}, "not a multiple of the block size"),
        ({"size": "1MiB", "block_size": 77}, "block size 77"),
    ],
)
def test_luns_that_cannot_be_meant(arguments: dict[str, int | str], message: str) -> None:
    with VirtualHba(0, port=LoopbackPort()) as hba:
        with pytest.raises(UsageError, match=message):
            hba.add_lun(0, **arguments)  # type: ignore[arg-type]
        hba.add_lun(0, size="1MiB")
        with pytest.raises(UsageError, match="LUN 0 exists already"):
            hba.add_lun(0, size="1MiB")


def test_a_handler_that_cannot_be_meant_is_refused_at_its_place() -> None:
    with VirtualHba(0, port=LoopbackPort()) as hba:
        with pytest.raises(ConfigError, match=r"LUN 7\.handler"):
            hba.add_lun(7, handler={"handler": "memroy"})
        assert hba.luns == {}


def test_a_lun_needs_the_context() -> None:
    hba = VirtualHba(0, port=LoopbackPort())
    with pytest.raises(TransportError, match="enter its context"):
        hba.add_lun(0, size="1MiB")
    with hba:
        hba.stop()
        with pytest.raises(TransportError, match="is not running"):
            hba.add_lun(0, size="1MiB")
        with pytest.raises(UsageError, match="there is no LUN 5"):
            hba.wait_for_disk(5)


def test_management_is_told_and_marks_the_tasks() -> None:
    port = LoopbackPort()
    told: list[Management] = []
    with VirtualHba(0, port=port, on_management=told.append) as hba:
        hba.add_lun(0, size="1MiB")
        loopback = port.loopbacks[0]
        seen = loopback.submit(READ, data_in=512)
        task = hba.next_task(10)
        unseen = loopback.submit(READ, data_in=512)
        loopback.manage(1, [seen, unseen])
        after = loopback.submit(TEST_UNIT_READY)
        assert task
        following = hba.next_task(10)
        assert following
        assert following.cdb == TEST_UNIT_READY
        assert [(request.lun, request.function) for request in told] == [(0, "ABORT TASK")]
        assert task.aborted == "ABORT TASK"
        assert task in told[0].tasks
        assert loopback.wait(unseen).status == 0x40, "what nobody had seen is answered by itself"
        task.complete(CHECK_CONDITION)
        following.complete()
        assert loopback.wait(seen).status == CHECK_CONDITION
        assert loopback.wait(after).status == 0


def test_a_reset_reaches_the_unit_that_answers_by_default() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        with serving(hba):
            assert port.run(0, TEST_UNIT_READY).status == 0
            port.loopbacks[0].manage(5)
            answer = port.run(0, TEST_UNIT_READY)
            assert (answer.status, *key(answer)) == (CHECK_CONDITION, 6, 0x2903)


def test_what_a_reset_ends_is_handed_out_and_comes_before_the_reset() -> None:
    """tcm_loop reports success to the sender: so the command is executed, not refused for an event."""
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba, build({"handler": "memory", "size": "1MiB"}) as memory:
        lun = hba.add_lun(0, size="1MiB")
        loopback = port.loopbacks[0]
        lun.unit.raise_unit_attention(Asc.CAPACITY_DATA_HAS_CHANGED)
        seen = loopback.submit(WRITE, data_out=b"a" * 512)
        tasks = [hba.next_task(10)]
        unseen = loopback.submit(WRITE, data_out=b"b" * 512)
        loopback.manage(5, [seen, unseen])
        newer = loopback.submit(TEST_UNIT_READY)
        tasks += [hba.next_task(10), hba.next_task(10)]
        for task in tasks:
            assert task
            task.answer_as(lun.unit, memory)
        assert [loopback.wait(tag).status for tag in (seen, unseen)] == [0, 0]
        assert (answer := loopback.wait(newer)).status == CHECK_CONDITION
        assert key(answer) == (6, 0x2903)
        stored = bytearray(512)
        memory.read(0, [memoryview(stored)])
        assert stored == b"b" * 512
