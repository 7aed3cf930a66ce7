from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.handlers.test_filter import verbs
from vscsihba.handlers.base import Handler
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.interceptor import VERBS, Interceptor, Request
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.stack import build

FACTS = {"geometry", "capabilities", "identity", "is_known_as", "inline", "asynchronous", "space", "place"}


class Recorder(Interceptor):
    name = "recorder"

    def __init__(self, below: Handler) -> None:
        super().__init__(Handler.Options(), below)
        self.seen: list[str] = []

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        self.seen.append(f"<{request}")
        try:
            yield
        finally:
            self.seen.append(f"{request.verb}>")


CALLS: list[tuple[Callable[[Checked], object], str]] = [
    (lambda disk: disk.read(0, [memoryview(bytearray(4))]), "read offset=0 length=4"),
    (lambda disk: disk.write(8, [memoryview(b"ab"), memoryview(b"c")]), "write offset=8 length=3"),
    (lambda disk: disk.write(8, [memoryview(b"ab")], fua=True), "write offset=8 length=2 fua"),
    (lambda disk: disk.flush(), "flush"),
    (lambda disk: disk.unmap(0, 512), "unmap offset=0 length=512"),
    (
        lambda disk: disk.write_zeroes(0, 512, may_unmap=True, fua=True),
        "write_zeroes offset=0 length=512 fua",
    ),
    (lambda disk: disk.extents(512, 1024), "extents offset=512 length=1024"),
    (lambda disk: disk.resize(2 << 20), "resize size=2097152"),
]


@pytest.mark.parametrize(("call", "words"), CALLS)
def test_every_verb_is_surrounded(call: Callable[[Checked], object], words: str) -> None:
    memory = MemoryHandler(MemoryHandler.Options(size=1 << 20))
    memory.open()
    recorder = Recorder(memory)
    disk = Checked(recorder)
    disk.open()
    call(disk)
    assert recorder.seen == [f"<{words}", f"{words.split(maxsplit=1)[0]}>"]


def test_no_verb_is_forgotten() -> None:
    assert set(VERBS) == verbs() - FACTS
    for verb in VERBS:
        assert getattr(Interceptor, verb) is not getattr(PassThrough, verb), verb


def test_nothing_goes_by_inline_unseen() -> None:
    memory = MemoryHandler(MemoryHandler.Options(size=512))
    memory.open()
    assert Recorder(memory).inline.read is None
    assert Recorder(memory).inline.write is None


@pytest.mark.parametrize("name", ["log", "delay", "rate", "error"])
def test_verbs_that_are_not_watched_stay_inline(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(4096))
    needed = {"delay": {"seconds": 0}, "rate": {"requests_per_second": 1000}}.get(name, {})
    for watched in (["flush"], ["write"], ["read", "write"]):
        with build({"handler": name, "verbs": watched, **needed, "next": str(tmp_path / "a.img")}) as disk:
            assert (disk.inline.read is None) == ("read" in watched)
            assert (disk.inline.write is None) == ("write" in watched)
            assert (disk.inline.write_limit > 0) == ("write" not in watched)
