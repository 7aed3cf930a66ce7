"""Random histories of a server that fails in every known way: a read has the right bytes, or is an error."""

import os
import random
import threading

import pytest

from tests.handlers.http.conftest import CONTENT, MakeServer
from tests.handlers.http.servers import Reply, Request, Script
from tests.handlers.http.test_faults import BROKEN, SHORT, cut_short, hang, redirect
from tests.polling import wait_until
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read

SEEDS = int(os.environ.get("HTTP_SEEDS", "6"))
BIG = CONTENT * 2


def random_script(choice: random.Random, other: str) -> Script:
    """Return a script that lets about every third request fail, each in a way of its own."""
    lock = threading.Lock()

    def another_version(request: Request, reply: Reply) -> None:
        reply.fields["ETag"] = '"two"'
        reply.body = bytes(len(reply.body))

    def busy(request: Request, reply: Reply) -> None:
        reply.status, reply.body = 503, b"later"

    def lost(request: Request, reply: Reply) -> None:
        reply.raw, reply.close = b"", True

    def script(request: Request, reply: Reply) -> None:
        with lock:
            if choice.random() < 0.65:
                return
            short = cut_short(choice.randrange(len(reply.body) + 1))
            broken = choice.choice([script for script, _ in BROKEN.values()])
            mild = choice.choice([short, busy, lost, short, redirect(other)])
            rare = choice.choice([broken, another_version, hang])
            fault = mild if choice.random() < 0.85 else rare
        fault(request, reply)

    return script


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_read_has_the_right_bytes_or_is_an_error(make_server: MakeServer, seed: int) -> None:
    choice = random.Random(seed)
    server, second = make_server(BIG), make_server(BIG)
    document: Document = {
        "handler": "http",
        "url": server.url(),
        "timeout": SHORT,
        "read_ahead": choice.choice([0, 1 << 20, 8 << 20]),
        "connections": choice.choice([1, 2, 8]),
    }
    good, failed, wrong = list[int](), list[int](), list[str]()
    with build(document) as disk:
        server.script = random_script(random.Random(seed + 1), second.url())
        second.script = random_script(random.Random(seed + 2), server.url())

        def work(number: int) -> None:
            mine = random.Random(seed * 100 + number)
            offset = mine.randrange(len(BIG))
            for _ in range(25):
                if mine.random() < 0.3:
                    offset = mine.randrange(len(BIG))
                length = min(mine.choice([512, 4096, 65536, 300_001]), len(BIG) - offset)
                try:
                    data = read(disk, offset, length)
                except OSError:
                    failed.append(offset)
                else:
                    good.append(offset)
                    if data != BIG[offset : offset + length]:
                        wrong.append(f"{length} bytes at {offset}")
                offset = (offset + length) % len(BIG)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        server.script = second.script = lambda request, reply: None
        wait_until(lambda: can_read_all(disk), limit=30)
    assert wrong == []
    assert len(good) + len(failed) == 100
    assert len(good) > 25


def can_read_all(disk: Checked) -> bool:
    """Return whether every byte can be read, and is right."""
    try:
        return all(read(disk, at, 65536) == BIG[at : at + 65536] for at in range(0, len(BIG), 65536))
    except OSError:
        return False
