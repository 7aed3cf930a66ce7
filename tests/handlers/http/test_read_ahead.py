import random
import threading
import time

import pytest

from tests.handlers.http.conftest import CONTENT, MakeServer
from tests.handlers.http.servers import Reply, Request, Scripted
from tests.polling import wait_until
from vscsihba.errors import MediumError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.http import read_ahead
from vscsihba.handlers.http.handler import HttpHandler
from vscsihba.handlers.http.read_ahead import CHUNK
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read

BIG = CONTENT * 8
PAGE = 4096


def disk_of(server: Scripted, **options: object) -> Document:
    return {"handler": "http", "url": server.url(), **options}


def read_through(disk: Checked, content: bytes, step: int, start: int = 0) -> None:
    for offset in range(start, len(content), step):
        length = min(step, len(content) - offset)
        assert read(disk, offset, length) == content[offset : offset + length]


def test_sequential_reads_take_few_requests(make_server: MakeServer) -> None:
    server = make_server(BIG)
    with build(disk_of(server)) as disk:
        read_through(disk, BIG, PAGE)
    assert len(server.requests) < 3 * len(BIG) // CHUNK
    # Little is fetched twice.
    fetched = sum(min(end, len(BIG)) - start for start, end in (each.range for each in server.requests))
    assert fetched < 1.1 * len(BIG)


def test_without_memory_each_read_is_a_request(server: Scripted) -> None:
    with build(disk_of(server, read_ahead=0)) as disk:
        before = len(server.requests)
        read_through(disk, CONTENT[: 64 * PAGE], PAGE)
        assert len(server.requests) - before == 64


def test_reads_here_and_there_fetch_what_they_ask_for(make_server: MakeServer) -> None:
    server = make_server(BIG)
    with build(disk_of(server)) as disk:
        before = len(server.requests)
        for number in range(40):
            offset = number * 5 % 40 * 200_000 // PAGE * PAGE
            assert read(disk, offset, PAGE) == BIG[offset : offset + PAGE]
        ranges = [request.range for request in server.requests[before:]]
        assert [end - start for start, end in ranges] == [PAGE] * 40


def chunks_of(disk: Checked) -> int:
    """Return the bytes that a disk has fetched ahead, or fetches now."""
    handler = disk.next
    assert isinstance(handler, HttpHandler)
    return sum(len(chunk.content) for chunk in handler._reader._chunks.values())


def test_memory_is_bounded_whatever_is_read(make_server: MakeServer) -> None:
    server = make_server(BIG)
    memory = 6 * CHUNK
    with build(disk_of(server, read_ahead=memory)) as disk:
        most = 0
        positions = [at * len(BIG) // 4 for at in range(4)]
        for _ in range(60):
            for number, offset in enumerate(positions):
                assert read(disk, offset, 3 * PAGE) == BIG[offset : offset + 3 * PAGE]
                positions[number] += 3 * PAGE
                most = max(most, chunks_of(disk))
        assert CHUNK <= most <= memory


def test_a_read_waits_for_a_chunk_that_is_under_way(make_server: MakeServer) -> None:
    server = make_server(BIG)
    with build(disk_of(server)) as disk:
        gate = threading.Event()
        read(disk, 0, PAGE)

        def hold_chunks(request: Request, reply: Reply) -> None:
            start, end = request.range
            if end - start > PAGE:
                gate.wait(20)

        server.script = hold_chunks
        read(disk, PAGE, PAGE)
        wait_until(lambda: chunks_of(disk) > 0)
        before = len(server.requests)
        result: list[bytes] = []
        reader = threading.Thread(target=lambda: result.append(read(disk, 2 * PAGE, PAGE)))
        reader.start()
        time.sleep(0.2)
        assert not result
        gate.set()
        reader.join()
        assert result == [BIG[2 * PAGE : 3 * PAGE]]
        assert all(end - start > PAGE for start, end in (each.range for each in server.requests[before:]))


def test_a_chunk_that_cannot_be_had_is_no_error(make_server: MakeServer) -> None:
    server = make_server(BIG)
    failed = 0

    def fail_chunks(request: Request, reply: Reply) -> None:
        nonlocal failed
        start, end = request.range
        if end - start > PAGE:
            failed += 1
            reply.status, reply.body = 404, b""

    with build(disk_of(server)) as disk:
        server.script = fail_chunks
        read_through(disk, BIG[: 100 * PAGE], PAGE)
        assert failed > 0


def test_what_was_fetched_of_a_version_is_of_that_version(make_server: MakeServer) -> None:
    server = make_server(BIG)
    with build(disk_of(server)) as disk:
        for offset in (0, PAGE, 2 * PAGE):
            read(disk, offset, PAGE)
        wait_until(lambda: all(chunk.ready for chunk in disk.next._reader._chunks.values()))  # type: ignore[attr-defined]
        server.fields["ETag"] = '"two"'
        server.content = bytes(len(BIG))
        offset = 3 * PAGE

        def read_on() -> None:
            nonlocal offset
            while offset < len(BIG):
                assert read(disk, offset, PAGE) == BIG[offset : offset + PAGE]
                offset += PAGE

        with pytest.raises(MediumError, match="changed"):
            read_on()
        assert offset > 3 * PAGE


def test_without_memory_for_a_chunk_nothing_is_fetched_ahead(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*arguments: object) -> None:
        raise MemoryError

    with build(disk_of(server)) as disk:
        monkeypatch.setattr(read_ahead, "_Chunk", none_left)
        read_through(disk, CONTENT[: 64 * PAGE], PAGE)
        assert chunks_of(disk) == 0


def test_a_read_is_not_held_up_by_what_is_fetched_ahead(make_server: MakeServer) -> None:
    server = make_server(BIG)
    over = threading.Event()

    def hold_chunks(request: Request, reply: Reply) -> None:
        start, end = request.range
        if end - start > PAGE:
            over.wait(60)

    with build(disk_of(server, connections=2)) as disk:
        server.script = hold_chunks
        read(disk, 0, PAGE)
        read(disk, PAGE, PAGE)
        wait_until(lambda: chunks_of(disk) > 0)
        for offset in range(4 << 20, (4 << 20) + 40 * 65536, 5 * 65536):
            assert read(disk, offset, PAGE) == BIG[offset : offset + PAGE]
        over.set()


def test_many_threads_read_what_is_there(make_server: MakeServer) -> None:
    server = make_server(BIG)
    jitter = random.Random(1)
    server.script = lambda request, reply: time.sleep(jitter.random() / 200)
    ended: list[int] = []
    with build(disk_of(server, read_ahead="2MiB", connections=5)) as disk:

        def work(seed: int) -> None:
            choice = random.Random(seed)
            offset = choice.randrange(len(BIG))
            for _ in range(60):
                if choice.random() < 0.2:
                    offset = choice.randrange(len(BIG))
                length = min(choice.choice([512, PAGE, 65536, 300_001]), len(BIG) - offset)
                assert read(disk, offset, length) == BIG[offset : offset + length]
                offset = (offset + length) % len(BIG)
            ended.append(seed)

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(ended) == list(range(8))
