"""NBD disks on real servers that are lost, hang, change or lie."""

import errno
import logging
import mmap
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from tests.engine.slow import FLUSH
from tests.handlers.nbd.servers import Server, nbdkit, needs_nbdkit, needs_qemu_nbd, qemu_nbd
from tests.handlers.places import open_files
from tests.polling import wait_until
from vscsihba.errors import FlushError, HostError, InUseError, UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.nbd import address as addresses
from vscsihba.handlers.nbd import link as links
from vscsihba.handlers.nbd.connection import Connection
from vscsihba.handlers.nbd.handler import NbdHandler
from vscsihba.handlers.nbd.link import Link
from vscsihba.handlers.nbd.negotiation import Negotiation
from vscsihba.handlers.nbd.options import NbdOptions
from vscsihba.handlers.nbd.requests import Export, Kind, Request
from vscsihba.handlers.nbd.transmission import SocketTransmission
from vscsihba.handlers.nbd.unflushed import UnflushedWrites
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

pytestmark = needs_nbdkit

MIB = 1 << 20
VOLATILE = ("--filter=cache", "file", "cache=writeback")


@contextmanager
def disk(server: Server, **options: Any) -> Iterator[Checked]:
    """Open a disk on a server that runs; nothing is left of it afterwards."""
    with build(server.document(**{"timeout": 20, **options})) as top:
        yield top


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    return path


@pytest.fixture
def volatile(tmp_path: Path, image: Path) -> Iterator[Server]:
    """A server that loses everything since the last flush when it is killed."""
    with nbdkit(tmp_path, *VOLATILE, str(image)) as server:
        yield server


def test_nothing_is_left_of_a_closed_disk(tmp_path: Path, image: Path) -> None:
    with nbdkit(tmp_path, "file", str(image)) as server:
        with disk(server):  # threads and modules that are there once
            pass
        before, threads = open_files(), threading.active_count()
        with disk(server) as top:
            write(top, 0, b"1234")
            server.kill()
            server.start()
            assert read(top, 0, 4) == b"1234"
        wait_until(lambda: (open_files(), threading.active_count()) == (before, threads))


def test_a_killed_server_is_waited_for(tmp_path: Path, image: Path) -> None:
    with nbdkit(tmp_path, "file", str(image)) as server, disk(server) as top:
        write(top, 512, b"before")
        server.kill()
        restart = threading.Event()
        results: list[bytes] = []

        def reading() -> None:
            restart.set()
            results.append(read(top, 512, 6))

        thread = threading.Thread(target=reading)
        thread.start()
        assert restart.wait(10)
        thread.join(0.3)
        assert thread.is_alive()
        server.start()
        thread.join(20)
        assert results == [b"before"]


def test_a_loss_that_is_noticed_by_the_next_request_itself(
    tmp_path: Path, image: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody serves the socket, so the end of the connection is noticed when the request is sent."""
    monkeypatch.setattr(links, "_TICK", 60.0)
    results: list[OSError | None] = []
    with nbdkit(tmp_path, "file", str(image)) as server, disk(server, connections=1, timeout=240) as top:
        link = link_of(top)
        read(top, 0, 1)
        for number in range(5):
            link.attach()  # nobody serves the socket meanwhile
            server.kill()
            server.start()
            link.begin(Request(Kind.WRITE, results.append, 0, 1, bytes([number])))
            wait_until(lambda: caplog.text.count("connected again") == number + 1, limit=20)  # noqa: B023
            link.detach()
            wait_until(lambda: len(results) == number + 1)  # noqa: B023
        assert results == [None] * 5
        assert read(top, 0, 1) == bytes([4])


def link_of(top: Checked) -> Link:
    layer = top.next
    assert isinstance(layer, NbdHandler)
    return layer._link


def test_writes_that_a_lost_server_has_lost_are_sent_again(volatile: Server, image: Path) -> None:
    with disk(volatile) as top:
        write(top, 0, b"a" * 8192)
        top.flush()
        write(top, 4096, b"b" * 8192)
        write(top, 6000, b"c" * 100)
        top.write_zeroes(4096, 512, may_unmap=True)
        volatile.kill()
        assert image.read_bytes()[:8192] == b"a" * 8192
        assert not any(image.read_bytes()[8192:])
        volatile.start()
        expected = b"a" * 4096 + bytes(512) + b"b" * (6000 - 4608) + b"c" * 100 + b"b" * (12288 - 6100)
        assert read(top, 0, 12288) == expected
        top.flush()
        assert image.read_bytes()[:12288] == expected


def test_a_disk_is_not_closed_with_writes_that_only_it_has(volatile: Server, image: Path) -> None:
    with disk(volatile) as top:
        write(top, 0, b"a" * 4096)
        volatile.kill()
        volatile.start()
    assert image.read_bytes()[:4096] == b"a" * 4096
    stack = build(volatile.document(timeout=0.5))
    write(stack.open(), 0, b"b" * 4096)
    volatile.kill()
    with pytest.raises(OSError, match="not answered"):
        stack.close()


def test_without_copies_the_next_flush_fails_once(volatile: Server, image: Path) -> None:
    with disk(volatile, unflushed=0) as top:
        write(top, 0, b"a" * 4096)
        top.flush()
        write(top, 0, b"b" * 4096)
        volatile.kill()
        volatile.start()
        with pytest.raises(FlushError, match="acknowledged writes that were not flushed"):
            top.flush()
        top.flush()
        assert read(top, 0, 4096) == b"a" * 4096


def test_a_server_that_takes_the_writes_slowly_again_is_waited_for(tmp_path: Path, image: Path) -> None:
    slow = ("--filter=noparallel", "--filter=delay", "file", str(image), "wdelay=150ms", "serialize=requests")
    with nbdkit(tmp_path, *slow) as server, disk(server, timeout=1.0) as top:
        for block in range(12):
            write(top, block * 4096, b"%04d" % block * 1024)
        server.kill()
        image.write_bytes(bytes(MIB))
        server.start()
        wait_until(lambda: _works(top))
        data = b"".join(b"%04d" % block * 1024 for block in range(12))
        assert read(top, 0, len(data)) == data


def test_a_discard_is_not_repeated_as_zeroes_that_take_storage(tmp_path: Path, image: Path) -> None:
    no_zeroes = ("--filter=nozero", "file", str(image), "zeromode=emulate")
    with nbdkit(tmp_path, *no_zeroes) as server, disk(server) as top:
        top.unmap(0, MIB)
        assert image.stat().st_blocks == 0
        server.kill()
        server.start()
        read(top, 0, 512)
        top.flush()
        assert image.stat().st_blocks == 0


def test_a_flush_beside_one_of_the_disk_itself_tells_of_its_failure(tmp_path: Path) -> None:
    """The server reports lost writes once, to the flush that nobody but the disk has asked for."""
    first = f"if mkdir {tmp_path}/first 2>/dev/null; then sleep 0.5; echo EIO >&2; exit 1; fi"
    script = (
        *("get_size=echo 65536", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null"),
        *("can_write=exit 0", "can_flush=exit 0", "thread_model=echo parallel", f"flush={first}"),
    )
    with nbdkit(tmp_path, "eval", *script) as server, disk(server, unflushed=4096) as top:
        write(top, 0, bytes(8192))
        wait_until((tmp_path / "first").exists)
        with pytest.raises(FlushError, match="a flush has failed"):
            top.flush()
        top.flush()


def test_answers_that_came_while_nobody_served_end_their_requests(tmp_path: Path, image: Path) -> None:
    """An engine that was stopped for longer than the time limit, with a long queue."""
    with nbdkit(tmp_path, "file", str(image)) as server:
        options = NbdOptions(uri=server.uri(), timeout=1.0, connections=1)
        link = Link(options.address, options.link)
        link.open()
        link.attach()  # to a pump that does nothing
        ends: list[OSError | None] = []
        for _ in range(200):
            link.begin(Request(Kind.FLUSH, ends.append))
        wait_until(lambda: len(ends) == 200)
        link.close()


def test_a_flush_of_the_disk_itself_that_is_not_answered_is_no_loss(tmp_path: Path) -> None:
    """The connection is replaced, and the writes are sent again."""
    wait = f"if mkdir {tmp_path}/first 2>/dev/null; then sleep 3; fi; exit 0"
    script = (
        *("get_size=echo 1048576", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null"),
        *("can_write=exit 0", "can_flush=exit 0", "thread_model=echo parallel", f"flush={wait}"),
    )
    with nbdkit(tmp_path, "eval", *script) as server, disk(server, unflushed=4096, timeout=1.0) as top:
        top.write(0, [memoryview(bytes(8192))])
        wait_until((tmp_path / "first").exists, "the flush of the disk itself")
        time.sleep(1.5)
        top.flush()


def test_a_loss_after_a_flush_loses_nothing(volatile: Server) -> None:
    with disk(volatile, unflushed=0) as top:
        write(top, 0, b"a" * 4096)
        top.flush()
        volatile.kill()
        volatile.start()
        top.flush()
        assert read(top, 0, 4096) == b"a" * 4096


def test_more_writes_than_are_kept_are_flushed(volatile: Server, image: Path) -> None:
    with disk(volatile, unflushed="64KiB") as top:
        for number in range(64):
            write(top, number * 8192, bytes([number + 1]) * 8192)
        wait_until(lambda: image.read_bytes()[:8192] == bytes([1]) * 8192)


def test_a_fua_write_without_fua_of_the_server_is_flushed(
    volatile: Server, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Negotiation._export
    monkeypatch.setattr(Negotiation, "_export", lambda self: replace(whole(self), fua=False))
    with disk(volatile) as top:
        write(top, 0, b"a" * 512)
        write(top, 512, b"b" * 512, fua=True)
        assert image.read_bytes()[:1024] == b"a" * 512 + b"b" * 512


def test_without_a_server_requests_fail_after_the_time_limit_and_then_at_once(
    tmp_path: Path, image: Path
) -> None:
    with nbdkit(tmp_path, "file", str(image)) as server, disk(server, timeout=1.0) as top:
        server.kill()
        began = time.monotonic()
        with pytest.raises(OSError, match="not answered within 1 s") as failed:
            read(top, 0, 512)
        assert 0.9 < time.monotonic() - began < 8
        assert failed.value.errno == errno.ETIMEDOUT
        time.sleep(0.3)
        began = time.monotonic()
        with pytest.raises(OSError, match="no connection"):
            top.flush()
        assert time.monotonic() - began < 0.5
        server.start()
        wait_until(lambda: _works(top))


def _works(top: Checked) -> bool:
    try:
        read(top, 0, 512)
    except OSError:
        return False
    return True


def test_a_server_that_hangs_is_given_up_and_its_buffer_is_not_used_any_more(
    tmp_path: Path, image: Path
) -> None:
    image.write_bytes(b"x" * MIB)
    with nbdkit(tmp_path, "file", str(image)) as server, disk(server, timeout=1.0) as top:
        server.signal(signal.SIGSTOP)
        wait_until(server.is_stopped)
        room = bytearray(4096)
        with pytest.raises(TimeoutError):
            top.read(0, [memoryview(room)])
        server.signal(signal.SIGCONT)
        wait_until(lambda: _works(top))
        assert not any(room)


def test_requests_of_initiators_survive_a_restart(tmp_path: Path, image: Path) -> None:
    with nbdkit(tmp_path, *VOLATILE, str(image)) as server, Rig(server.document(timeout=20)) as rig:
        rig.run(bytes(6))
        done = 0
        for life in range(3):
            tags = [
                rig.loopback.submit(rw10(0x2A, 8 * number, 8), data_out=bytes([life + 1]) * 4096)
                for number in range(32)
            ]
            server.kill()
            server.start()
            flush = rig.loopback.submit(FLUSH)
            assert {rig.loopback.wait(tag).status for tag in (*tags, flush)} == {GOOD}
            answer = rig.read(0, 8)
            assert answer.data == bytes([life + 1]) * 4096
            done += 1
        assert done == 3
        server.kill()
        server.start()
        assert rig.read(8 * 31, 8).data == bytes([3]) * 4096


def test_a_write_that_is_acknowledged_during_the_loss_is_repeated_too(
    volatile: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of the write is being handed on while another thread notices the loss and connects again."""
    whole = UnflushedWrites.note
    lost: list[bool] = []
    known: list[Link] = []

    def note(self: UnflushedWrites, ended: list[tuple[Request, int]], export: Export) -> None:
        if not lost and ended[0][0].kind is Kind.WRITE:
            lost.append(True)
            volatile.kill()
            volatile.start()
            known[0]._lose(known[0]._connections[0], "the test says so")
            time.sleep(0.5)
        whole(self, ended, export)

    with Rig(volatile.document(timeout=20)) as rig:
        rig.run(bytes(6))
        assert rig.stack is not None
        layer = rig.stack.layers[0]
        assert isinstance(layer, NbdHandler)
        known.append(layer._link)
        monkeypatch.setattr(UnflushedWrites, "note", note)
        assert rig.write(0, b"a" * 4096).status == GOOD
        assert lost
        assert rig.run(FLUSH).status == GOOD
        assert rig.read(0, 8).data == b"a" * 4096


def test_a_link_that_is_closed_while_it_connects_again(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The new connections are closed, and nobody waits on them."""
    with nbdkit(tmp_path, "file", str(image)) as server:
        options = NbdOptions(uri=server.uri(), connections=2)
        link = Link(options.address, options.link)
        link.open()
        made: list[Connection] = []
        whole = link._connector.connect

        def connect() -> tuple[list[Connection], Export]:
            connections, export = whole()
            made.extend(connections)
            link.close()
            return connections, export

        monkeypatch.setattr(link._connector, "connect", connect)
        link._reconnect_once()
        assert [connection.over for connection in made] == [True, True]
    assert not caplog.records


def test_requests_on_a_connection_that_is_given_up_are_answered_before_they_are_sent_again(
    tmp_path: Path,
) -> None:
    """The server would execute them late, after newer writes to the same place."""
    count = tmp_path / "writes"
    script = (
        *("get_size=echo 65536", "pread=head -c $3 /dev/zero", "can_write=exit 0", "can_multi_conn=exit 0"),
        *(f"pwrite=cat >/dev/null; sleep 0.2; echo >>{count}", "thread_model=echo parallel"),
    )
    with nbdkit(tmp_path, "eval", *script) as server, disk(server, connections=2) as top:
        link, ends = link_of(top), list[OSError | None]()
        for block in range(4):
            link.begin(Request(Kind.WRITE, ends.append, block * 512, 512, bytes(512)))
        time.sleep(0.1)  # the server has begun
        link._lose(link._connections[0], "the test says so")
        wait_until(lambda: len(ends) == 4)
        assert ends == [None] * 4
        assert read(top, 0, 1) == b"\0"  # connected again
        assert count.read_text().count("\n") == 4


def test_initiators_learn_that_the_server_is_away(tmp_path: Path, image: Path) -> None:
    with nbdkit(tmp_path, "file", str(image)) as server, Rig(server.document(timeout=0.5)) as rig:
        rig.run(bytes(6))
        server.kill()
        answer = rig.read(0, 1)
        assert (answer.status, triple(answer)) == (CHECK_CONDITION, (2, 4, 1))
        assert triple(rig.run(FLUSH))[0] == 4
        server.start()
        wait_until(lambda: rig.read(0, 1).status == GOOD)


def test_the_pump_finishes_requests_without_other_threads(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    before = set(threading.enumerate())
    whole = SocketTransmission.notify

    def notify(self: SocketTransmission, events: int) -> None:
        seen.add(threading.current_thread().name)
        whole(self, events)

    monkeypatch.setattr(SocketTransmission, "notify", notify)
    with nbdkit(tmp_path, "file", str(image)) as server, Rig(server.document()) as rig:
        rig.run(bytes(6))
        seen.clear()
        for _ in range(20):
            assert rig.read(0, 8).status == GOOD
    assert "pump" in seen
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name.startswith("lun0")]


def test_an_export_that_is_another_one_is_not_used(
    tmp_path: Path, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with nbdkit(tmp_path, "file", str(image)) as server, disk(server, timeout=1.0) as top:
        server.kill()
        image.write_bytes(bytes(2 * MIB))
        server.start()
        with pytest.raises(OSError, match="the export has 2097152 bytes, and had 1048576"):
            read(top, 0, 512)
        with pytest.raises(OSError, match="can be changed on the server only"):
            top.resize(4 * MIB)
        top.resize(2 * MIB)
        assert top.geometry.size == 2 * MIB
        wait_until(lambda: _works(top))
        assert read(top, MIB, 512) == bytes(512)
    assert "connection lost" in caplog.text


def test_a_server_that_allows_no_writing(tmp_path: Path, image: Path) -> None:
    with nbdkit(tmp_path, "--readonly", "file", str(image)) as server:
        with pytest.raises(UsageError, match="does not allow writing; use read_only"), disk(server):
            pass
        with disk(server, read_only=True) as top:
            assert top.capabilities.read_only
            assert read(top, 0, 512) == bytes(512)


@needs_qemu_nbd
def test_a_wrong_export_is_refused_with_the_names_of_the_others(tmp_path: Path, image: Path) -> None:
    with qemu_nbd(tmp_path, image, "--format=raw", "--export-name=disk one") as server:
        with (
            pytest.raises(UsageError, match="refuses the export 'other'; it has: 'disk one'"),
            build({**server.document(), "uri": server.uri("other")}),
        ):
            pass
        with build({**server.document(), "uri": server.uri("disk%20one")}) as top:
            assert top.geometry.size == MIB


def test_a_size_that_no_disk_has(tmp_path: Path) -> None:
    with (
        nbdkit(tmp_path, "memory", "1000000") as server,
        pytest.raises(
            UsageError, match="1000000 is not a multiple of the block size 512; enlarge the export"
        ),
        disk(server),
    ):
        pass


def test_blocks_that_are_smaller_than_the_servers(tmp_path: Path) -> None:
    policy = ("--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096")
    with nbdkit(tmp_path, *policy, "blocksize-preferred=4096") as server:
        with disk(server) as top:
            assert top.geometry.block_size == 4096
        with pytest.raises(UsageError, match="wants blocks of 4096 bytes"), disk(server, block_size=512):
            pass


def test_parts_of_one_block_are_written_one_after_the_other(tmp_path: Path) -> None:
    """Each is a read and a write of the whole block; none takes back another."""
    policy = ("--filter=blocksize-policy", "--filter=delay", "memory", "1M", "delay-read=20ms")
    server = nbdkit(
        tmp_path,
        *policy,
        "blocksize-minimum=4096",
        "blocksize-preferred=4096",
        "blocksize-error-policy=error",
    )
    with server, disk(server) as top:
        threads = [
            threading.Thread(target=write, args=(top, part * 512, bytes([part + 1]) * 512))
            for part in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert read(top, 0, 4096) == b"".join(bytes([part + 1]) * 512 for part in range(8))


def test_an_asynchronous_write_does_not_overlap_a_write_of_a_part(tmp_path: Path) -> None:
    policy = ("--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096")
    with nbdkit(tmp_path, *policy, "blocksize-preferred=4096") as server, disk(server) as top:
        layer, verbs = top.next, top.asynchronous
        assert isinstance(layer, NbdHandler)
        assert verbs is not None
        assert verbs.write is not None
        results: list[OSError | None] = []
        block = [memoryview(b"b" * 4096)]
        with layer._alone.held(0, 4096):
            with pytest.raises(BlockingIOError):
                verbs.write(0, block, False, results.append)
            verbs.write(4096, block, False, results.append)
            wait_until(lambda: results == [None])
        with pytest.raises(BlockingIOError):
            verbs.write(512, block, False, results.append)
        verbs.write(0, block, False, results.append)
        wait_until(lambda: results == [None, None])
        assert not layer._alone._queue
        assert read(top, 0, 8192) == b"b" * 8192


def test_no_server(tmp_path: Path) -> None:
    server = nbdkit(tmp_path, "memory", "1M")
    missing = f"there is no socket {server.socket}; start the server, or correct the path in the URI"
    with pytest.raises(HostError, match=missing), disk(server):
        pass
    for uri, message in (
        (
            "nbd://127.0.0.1:1/x",
            "nbd://127.0.0.1:1/x: nothing listens at port 1 of 127.0.0.1; start the server",
        ),
        (
            "nbd://no-such-host.invalid/",
            "the host no-such-host.invalid has no address .*; correct it in the URI",
        ),
    ):
        with pytest.raises(HostError, match=message), build({"handler": "nbd", "uri": uri}):
            pass


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n" * 100, b"NBDMAGIC" + bytes(200)])
def test_a_server_that_speaks_something_else(tmp_path: Path, greeting: bytes) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            pytest.raises(HostError, match=f"check that (socket {path}|an NBD server listens)"),
            disk(Server(path), timeout=5),
        ):
            pass
        thread.join()


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(HostError, match="does not answer"), disk(Server(path), timeout=0.5):
            pass


def test_an_error_of_the_server_is_that_of_its_request(tmp_path: Path) -> None:
    trigger = tmp_path / "fail"
    faulty = (
        "--filter=error",
        "memory",
        "1M",
        "error=ENOSPC",
        "error-pwrite-rate=100%",
        f"error-file={trigger}",
    )
    with nbdkit(tmp_path, *faulty) as server, disk(server) as top:
        write(top, 0, b"good")
        trigger.touch()
        with pytest.raises(OSError, match="write: No space") as failed:
            write(top, 0, b"bad!")
        assert failed.value.errno == errno.ENOSPC
        assert read(top, 0, 4) == b"good"


def test_several_connections_only_where_the_server_allows_them(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Export] = []
    whole = Negotiation._export

    def count(self: Negotiation) -> Export:
        made.append(whole(self))
        return made[-1]

    monkeypatch.setattr(Negotiation, "_export", count)
    with nbdkit(tmp_path, "file", str(image)) as server:
        with disk(server, connections=3):
            assert len(made) == 3
        made.clear()
        with disk(server, connections=1):
            assert len(made) == 1
    made.clear()
    alone = ("--filter=multi-conn", "file", str(image), "multi-conn-mode=disable")
    with nbdkit(tmp_path, *alone) as server, disk(server, connections=3):
        assert len(made) == 1


def test_the_binding_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(
        HostError, match="handler nbd needs the Python package libnbd; install python3-libnbd"
    ):
        build({"handler": "nbd", "uri": "nbd://server/"}).check()


def test_a_memoryview_is_filled_in_place(tmp_path: Path, image: Path) -> None:
    """No copy: libnbd writes into the memory of the caller."""
    image.write_bytes(b"y" * MIB)
    with nbdkit(tmp_path, "file", str(image)) as server, disk(server) as top, mmap.mmap(-1, 8192) as memory:
        with memoryview(memory) as whole, whole[4096:] as view:
            top.read(0, [view])
        assert memory[4090:4100] == bytes(6) + b"yyyy"


def certificates(folder: Path) -> None:
    """Make an authority, a server's and a client's certificate with gnutls's certtool."""
    for name, template in {
        "ca": "cn = Authority\nca\ncert_signing_key\n",
        "server": "cn = localhost\ndns_name = localhost\ntls_www_server\nsigning_key\nencryption_key\n",
        "client": "cn = client\ntls_www_client\nsigning_key\nencryption_key\n",
    }.items():
        key, cert, info = folder / f"{name}-key.pem", folder / f"{name}-cert.pem", folder / f"{name}.info"
        info.write_text(template)
        _certtool("--generate-privkey", "--ecc", f"--outfile={key}")
        key.chmod(0o600)
        signing = (
            ["--generate-self-signed"]
            if name == "ca"
            else [
                "--generate-certificate",
                f"--load-ca-certificate={folder / 'ca-cert.pem'}",
                f"--load-ca-privkey={folder / 'ca-key.pem'}",
            ]
        )
        _certtool(*signing, f"--load-privkey={key}", f"--template={info}", f"--outfile={cert}")


def _certtool(*arguments: str) -> None:
    subprocess.run(["certtool", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    try:
        certificates(folder)
    except FileNotFoundError:
        pytest.skip("certtool is not installed (gnutls-bin, vagrant/packages/tests.txt)")
    return folder


def test_an_encrypted_connection(tmp_path: Path, image: Path, keys: Path) -> None:
    tls = ("--tls=require", f"--tls-certificates={keys}", "--tls-verify-peer")
    with nbdkit(tmp_path, *tls, "file", str(image)) as server:
        options = {"uri": server.uri(scheme="nbds+unix"), "tls_certificates": str(keys)}
        name = server.uri(scheme="nbds+unix")
        with (
            pytest.raises(HostError, match='not serve it without TLS; begin the URI with "nbds"'),
            disk(server),
        ):
            pass
        with (
            pytest.raises(UsageError, match=r'nothing would identify the server; .* in "tls_certificates"'),
            build({"handler": "nbd", "uri": name}),
        ):
            pass
        with build({"handler": "nbd", **options}) as top:
            write(top, 0, b"secret")
            server.kill()
            server.start()
            assert read(top, 0, 6) == b"secret"


def test_a_certificate_of_another_authority_or_host_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, image: Path, keys: Path
) -> None:
    certificates(others := tmp_path_factory.mktemp("others"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(
        tmp_path / "none", "nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "--tls=require",
        f"--tls-certificates={keys}", "file", str(image),
    )  # fmt: skip
    server.listens = lambda: _answers(port)  # type: ignore[method-assign]
    with server:
        document = {"handler": "nbd", "tls_certificates": str(keys), "timeout": 10}
        with build({**document, "uri": f"nbds://localhost:{port}/"}) as top:
            assert top.geometry.size == MIB
        for changed in (
            {"uri": f"nbds://127.0.0.1:{port}/"},
            {"uri": f"nbds://localhost:{port}/", "tls_certificates": str(others)},
        ):
            wrong = r"certificate is not for the host .*, or not by an authority in .*/ca-cert.pem; correct"
            with pytest.raises(HostError, match=wrong), build({**document, **changed}):
                pass


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return not client.connect_ex(("127.0.0.1", port))


def test_a_pre_shared_key(tmp_path: Path, image: Path) -> None:
    psk = tmp_path / "keys.psk"
    psk.write_text("disk:" + "0123456789abcdef" * 2 + "\n")
    psk.chmod(0o600)
    other = tmp_path / "other.psk"
    other.write_text("disk:" + "fedcba9876543210" * 2 + "\n")
    other.chmod(0o600)
    with nbdkit(tmp_path, "--tls=require", f"--tls-psk={psk}", "file", str(image)) as server:
        document = {"handler": "nbd", "uri": server.uri(scheme="nbds+unix"), "tls_username": "disk"}
        with build({**document, "tls_psk_file": str(psk)}) as top:
            write(top, 0, b"secret")
            assert read(top, 0, 6) == b"secret"
        with (
            pytest.raises(
                HostError, match=r'TLS handshake failed: .*; check "tls_psk_file" and "tls_username"'
            ),
            build({**document, "tls_psk_file": str(other), "timeout": 5}),
        ):
            pass


def test_a_server_without_tls_says_so(tmp_path: Path, image: Path, keys: Path) -> None:
    with nbdkit(tmp_path, "--tls=off", "file", str(image)) as server:
        document = {"handler": "nbd", "uri": server.uri(scheme="nbds+unix"), "tls_certificates": str(keys)}
        with (
            pytest.raises(HostError, match='; if it does not use TLS, begin the URI with "nbd"'),
            build(document),
        ):
            pass


def test_an_export_is_one_disk_only(tmp_path: Path, image: Path) -> None:
    with nbdkit(tmp_path, "file", str(image)) as server:
        with disk(server):
            with pytest.raises(InUseError, match="is a disk of this machine already"), disk(server):
                pass
            with pytest.raises(InUseError), disk(server, read_only=True):
                pass
        with disk(server, read_only=True) as one, build(server.document(read_only=True)) as other:
            assert read(one, 0, 512) == read(other, 0, 512)


def test_a_lun_of_a_hanging_server_is_closed_after_the_time_limit(tmp_path: Path, image: Path) -> None:
    """Its buffers are in the memory of the ring, which must not be released before."""
    with nbdkit(tmp_path, "file", str(image)) as server:
        with Rig(server.document(timeout=1.0)) as rig:
            rig.run(bytes(6))
            server.signal(signal.SIGSTOP)
            wait_until(server.is_stopped)
            tag = rig.loopback.submit(rw10(0x28, 0, 8), data_in=4096)
            wait_until(lambda: not rig.loopback.transport.pending())
        assert triple(rig.loopback.answers[tag]) == (2, 4, 1)
        server.signal(signal.SIGCONT)


def test_identity_and_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        options = NbdHandler.Options(uri="nbd://me@server/disk", timeout=3)
        assert NbdHandler(options).identity == "nbd:nbd://server/disk"
    assert addresses.libnbd().NBD
