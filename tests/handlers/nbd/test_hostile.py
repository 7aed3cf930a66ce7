"""NBD servers that lie: no command hangs, no initiator gets old memory, and no other disk notices."""

import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10
from tests.engine.serving.test_containment import second_unit
from tests.handlers.nbd.hostile import Asked, Conversation, Hostile, chunk, content, honest
from tests.polling import wait_until
from vscsihba.errors import HostError
from vscsihba.handlers.stack import build
from vscsihba.loopback import Loopback

SECRET = b"S"
LIMIT = 1.0
"""Seconds of the time limit; a command may take twice as long, since a server is waited for in between."""
LENGTH = 8192
HALF = LENGTH // 2
Lie = Callable[[Asked], bytes]


def data(asked: Asked, first: int, length: int, flags: int = 1) -> bytes:
    """Return a chunk with right bytes of what was asked for, from byte `first` of it on."""
    offset = asked.offset + first
    return chunk(asked.cookie, 1, struct.pack(">Q", offset) + content(offset, length), flags)


LIES: dict[str, Lie] = {
    "garbage": lambda _: bytes(range(256)) * 64,
    "the greeting again": lambda _: b"NBDMAGICIHAVEOPT" + bytes(64),
    "another handle": lambda asked: chunk(asked.cookie + 1, 0),
    "a handle from before": lambda asked: honest(asked) + honest(asked),
    "success without data": lambda asked: chunk(asked.cookie, 0),
    "a simple reply without data": lambda asked: struct.pack(">IIQ", 0x67446698, 0, asked.cookie),
    "half of it": lambda asked: data(asked, 0, HALF),
    "half of it, twice": lambda asked: data(asked, 0, HALF, 0) + data(asked, 0, HALF),
    "overlapping parts": lambda asked: data(asked, 0, HALF + 512, 0) + data(asked, HALF, HALF),
    "a hole over data": lambda asked: (
        data(asked, 0, HALF, 0) + chunk(asked.cookie, 2, struct.pack(">QI", asked.offset, HALF))
    ),
    "data from elsewhere": lambda asked: chunk(
        asked.cookie, 1, struct.pack(">Q", asked.offset + 512) + bytes(LENGTH)
    ),
    "more data than asked for": lambda asked: data(asked, 0, LENGTH + 512),
    "a huge chunk of data": lambda asked: struct.pack(
        ">IHHQIQ", 0x668E33EF, 1, 1, asked.cookie, 0xFFFFFFFF, 0
    ),
    "a huge error": lambda asked: struct.pack(">IHHQI", 0x668E33EF, 1, 0x8001, asked.cookie, 0xFFFFFFFF),
    "a huge allocation": lambda asked: struct.pack(">IHHQI", 0x668E33EF, 1, 5, asked.cookie, 0xFFFFFFFC),
    "an unknown chunk": lambda asked: chunk(asked.cookie, 99, bytes(64)),
    "an error in the middle": lambda asked: (
        data(asked, 0, HALF, 0) + chunk(asked.cookie, 0x8001, struct.pack(">IH", 5, 0))
    ),
    "an error without a number": lambda asked: chunk(asked.cookie, 0x8001, struct.pack(">IH", 0, 0)),
    "nothing": lambda _: b"",
    "half a header": lambda asked: honest(asked)[:10],
    "half the data": lambda asked: honest(asked)[: LENGTH // 2],
}


def stained(rig: Rig) -> None:
    """Leave bytes in the data area that no initiator may see: they are of another command."""
    for _ in range(4):  # MODE SELECT with a list that is too long is refused, and the kernel reuses its pages
        rig.run(bytes([0x55, 0x10, 0, 0, 0, 0, 0, *(LENGTH).to_bytes(2, "big"), 0]), data_out=SECRET * LENGTH)


def other_works(other: Loopback) -> None:
    """Check that another disk of the engine answers."""
    assert other.wait(other.submit(rw10(0x28, 0, 8), data_in=4096), 10).data == bytes(4096)


def _lying(lie: Lie) -> Callable[[Conversation], None]:
    """Return a server that lies to each READ, and closes the connection after that."""

    def behave(conversation: Conversation) -> None:
        while True:
            asked = conversation.ask()
            if asked.kind == 0:
                conversation.send(lie(asked))
                return
            conversation.answer(asked)

    return behave


def test_a_read_has_the_right_bytes_or_fails_in_time(tmp_path: Path) -> None:
    """Of all lies at once, since each takes as long as the time limit."""
    with ExitStack() as ending:
        rigs: dict[str, tuple[Hostile, Rig, list[int]]] = {}
        for number, (name, lie) in enumerate(LIES.items()):
            folder = tmp_path / str(number)  # the path of a socket is short
            folder.mkdir()
            server = ending.enter_context(Hostile(folder, _lying(lie)))
            rig = ending.enter_context(Rig(server.document(timeout=LIMIT)))
            rig.run(bytes(6))
            stained(rig)
            tags = [rig.loopback.submit(rw10(0x28, 16 * place, 16), data_in=LENGTH) for place in range(4)]
            rigs[name] = server, rig, tags
        for name, (server, rig, tags) in rigs.items():
            for place, tag in enumerate(tags):
                answer = rig.loopback.wait(tag, 20)
                if answer.status == GOOD:
                    assert answer.data == content(place * LENGTH, LENGTH), name
                else:
                    assert answer.status == CHECK_CONDITION, name
                    assert SECRET not in answer.data, name
            assert not rig.failures, name
            assert server.connections < 40, name  # it is not connected to again and again without a pause


def test_answers_in_any_order_and_in_pieces_are_right(tmp_path: Path) -> None:
    """Parts of several reads in turns, backwards, with holes between them."""

    def behave(conversation: Conversation) -> None:
        while True:
            asked = [conversation.ask()]
            if asked[0].kind != 0:
                conversation.answer(asked[0])
                continue
            asked += [conversation.ask() for _ in range(3)]
            for first in range(LENGTH - 512, -1, -512):
                for each in reversed(asked):
                    last = int(first == 0)
                    conversation.send(data(each, first, 512, last))

    with Hostile(tmp_path, behave) as server, Rig(server.document(timeout=20)) as rig:
        rig.run(bytes(6))
        stained(rig)
        for _ in range(3):
            tags = [rig.loopback.submit(rw10(0x28, 16 * number, 16), data_in=LENGTH) for number in range(4)]
            for number, tag in enumerate(tags):
                answer = rig.loopback.wait(tag)
                assert (answer.status, answer.data) == (GOOD, content(number * LENGTH, LENGTH))


def _dribble(conversation: Conversation) -> None:
    while True:
        asked = conversation.ask()
        for byte in honest(asked):
            conversation.send(bytes([byte]))
            if conversation.server.ended.wait(0.05):
                return


def _flood_with_errors(conversation: Conversation) -> None:
    asked = conversation.ask()
    while True:
        conversation.send(chunk(asked.cookie, 0x8001, struct.pack(">IH", 5, 0), 0) * 1000)


def _flood_with_nothing(conversation: Conversation) -> None:
    asked = conversation.ask()
    while True:
        conversation.send(chunk(asked.cookie, 0, b"", 0) * 1000)


def _flood_with_pieces(conversation: Conversation) -> None:
    asked = conversation.ask()
    while True:
        for first in range(0, LENGTH, 2):
            conversation.send(data(asked, first, 1, 0))


def _read_nothing(conversation: Conversation) -> None:
    conversation.server.ended.wait(60)


@pytest.mark.parametrize(
    "behave", [_dribble, _flood_with_errors, _flood_with_nothing, _flood_with_pieces, _read_nothing]
)
def test_a_server_that_keeps_sending_or_silent_ends_no_command_late(
    tmp_path: Path, behave: Callable[[Conversation], None]
) -> None:
    """And the other disk is served meanwhile."""
    with (
        Hostile(tmp_path, behave) as server,
        Rig(server.document(timeout=LIMIT)) as rig,
        second_unit(rig) as other,
    ):
        rig.run(bytes(6))
        other.wait(other.submit(bytes(6)))
        began = time.monotonic()
        tags = [rig.loopback.submit(rw10(0x28, 0, 16), data_in=LENGTH)]
        tags += [rig.loopback.submit(rw10(0x2A, 0, 64), data_out=bytes(32768)) for _ in range(32)]
        while not all(tag in rig.loopback.answers for tag in tags) and time.monotonic() < began + 30:
            other_works(other)
        assert {rig.loopback.wait(tag, 0).status for tag in tags} == {CHECK_CONDITION}
        assert not rig.failures


def test_a_size_that_changes_at_each_connection_is_refused_until_it_is_right_again(tmp_path: Path) -> None:
    def behave(conversation: Conversation) -> None:
        asked = conversation.ask()
        if asked.kind == 0 and asked.offset == 512 * 64:
            conversation.server.size += 512
            return
        conversation.answer(asked)
        while True:
            conversation.answer(conversation.ask())

    with Hostile(tmp_path, behave) as server, Rig(server.document(timeout=LIMIT)) as rig:
        rig.run(bytes(6))
        assert rig.read(64, 8).status == CHECK_CONDITION
        server.size = 1 << 20
        wait_until(lambda: rig.read(0, 8).status == GOOD, "the disk works again")
        assert rig.read(0, 8).data == content(0, 4096)


GREETINGS: dict[str, bytes] = {
    "a huge answer": b"NBDMAGICIHAVEOPT" + struct.pack(">HQIII", 3, 0x3E889045565A9, 8, 1, 0xFFFFFFFF),
    "an answer to no option": b"NBDMAGICIHAVEOPT" + struct.pack(">HQIII", 3, 0x3E889045565A9, 77, 1, 0) * 1,
    "garbage": b"\xff" * 4096,
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_a_negotiation_that_is_none_is_refused_in_one_line(tmp_path: Path, greeting: str) -> None:
    def negotiate(conversation: Conversation) -> None:
        conversation.send(GREETINGS[greeting])
        conversation.server.ended.wait(20)
        raise ConnectionResetError

    with (
        Hostile(tmp_path, lambda _: None, negotiate) as server,
        pytest.raises(HostError) as failed,
        build(server.document(timeout=LIMIT)),
    ):
        pass
    assert "\n" not in str(failed.value)


def test_a_server_that_negotiates_no_more_ends_no_command_late(tmp_path: Path) -> None:
    """It sends the greeting for ever, or a byte at a time, when it is connected to again."""

    def negotiate(conversation: Conversation) -> None:
        while conversation.number > 1:
            conversation.send(b"N")
            if conversation.server.ended.wait(0.05):
                raise ConnectionResetError

    def behave(conversation: Conversation) -> None:
        conversation.ask()

    with Hostile(tmp_path, behave, negotiate) as server, Rig(server.document(timeout=LIMIT)) as rig:
        rig.run(bytes(6))
        for _ in range(2):
            assert rig.loopback.wait(rig.loopback.submit(rw10(0x28, 0, 8), data_in=4096), 20).status == (
                CHECK_CONDITION
            )
