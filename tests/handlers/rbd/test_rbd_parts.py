"""Parts of the handler that need no cluster."""

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.polling import wait_until
from vscsihba.errors import ConfigError, InUseError, MediumError, UsageError
from vscsihba.handlers.rbd.connection import no_such
from vscsihba.handlers.rbd.extents import without_gaps
from vscsihba.handlers.rbd.handler import RbdHandler
from vscsihba.handlers.rbd.lock import LockNote
from vscsihba.handlers.rbd.requests import Requests
from vscsihba.handlers.rbd.ticker import Ticker
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_text import parse


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"create": True}, '"create" needs a "size"'),
        ({"read_only": True, "size": "1MiB"}, 'cannot be given a "size"'),
        ({"snapshot": "s", "size": "1MiB"}, 'cannot be given a "size"'),
        ({"data_pool": "fast"}, "so they need a"),
        ({"object_size": "4MiB"}, "so they need a"),
        ({"object_size": "3MiB", "size": "1GiB"}, "must be a power of two from 4KiB to 32MiB"),
        ({"object_size": "2KiB", "size": "1GiB"}, "must be a power of two from 4KiB to 32MiB"),
        ({"object_size": "64MiB", "size": "1GiB"}, "must be a power of two from 4KiB to 32MiB"),
        ({"object_size": 0, "size": "1GiB"}, "must be a power of two from 4KiB to 32MiB"),
        ({"features": ["layering"], "size": "1MiB"}, 'must have "exclusive-lock"'),
        ({"timeout": 0.5}, "counts whole seconds"),
        ({"lock": "shared"}, "cannot be"),
        ({"pool": ""}, "cannot be empty"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build({"handler": "rbd", "pool": "rbd", "image": "vm1", **options})


def test_no_cure_repeats_what_cannot_be_printed() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"handler": "rbd", "pool": "a\nb"})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("word", "cure"),
    [
        ("rbd:disks/vm1", "write rbd:disks;image=vm1"),
        ("rbd:disks/ns/vm1@monday", "write rbd:disks;namespace=ns;image=vm1;snapshot=monday"),
        ("rbd:disks", "write rbd:disks;image=IMAGE"),
        ("rbd:a/b/c/d", "needs the option 'image'$"),
    ],
)
def test_an_image_as_the_program_rbd_writes_it_is_explained(word: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        build(parse(word))


def test_a_wrong_name_lists_the_names_that_exist() -> None:
    assert str(no_such("pool", "a", [])) == "there is no pool a; there is no pool at all"
    assert str(no_such("pool", "xyz", ["b", "a"])) == "there is no pool xyz; known are: a, b"
    assert str(no_such("image", "p/disk1", ["disk2"], word="disk1")).endswith('did you mean "disk2"?')
    many = str(no_such("image", "p/xyz", [f"{number:02}" for number in range(100)], word="xyz"))
    assert many.endswith("10, 11, and 88 more")


def test_extents_are_gapless_and_join_neighbours() -> None:
    def shown(*runs: tuple[int, int]) -> list[tuple[int, int, bool]]:
        extents = without_gaps(list(runs), 10, 100)
        assert all(each.zero is not each.allocated for each in extents)
        return [(each.extent.offset, each.extent.end, each.allocated) for each in extents]

    assert shown() == [(10, 100, False)]
    assert shown((10, 100)) == [(10, 100, True)]
    assert shown((10, 20), (20, 30), (25, 40), (30, 35)) == [(10, 40, True), (40, 100, False)]
    assert shown((20, 30), (90, 100)) == [
        (10, 20, False), (20, 30, True), (30, 90, False), (90, 100, True)
    ]  # fmt: skip


def test_a_note_names_the_clients_that_were_killed() -> None:
    first = LockNote("image", "rbd/vm1")
    assert first.dead == []
    first.begin("1.2.3.4:0/1")
    with pytest.raises(InUseError, match="rbd/vm1 is in use by another disk of this machine"):
        LockNote("image", "rbd/vm1")
    first.close(released=False)

    second = LockNote("image", "rbd/vm1")
    assert second.dead == ["1.2.3.4:0/1"]
    second.begin("1.2.3.4:0/2")
    second.close(released=False)

    third = LockNote("image", "rbd/vm1")
    assert third.dead == ["1.2.3.4:0/1", "1.2.3.4:0/2"]
    third.begin("1.2.3.4:0/3")
    third.close(released=True)  # it was refused: the dead ones may still have the lock

    fourth = LockNote("image", "rbd/vm1")
    assert fourth.dead == ["1.2.3.4:0/1", "1.2.3.4:0/2"]
    fourth.begin("1.2.3.4:0/4")
    fourth.acquired()
    fourth.close(released=False)
    fifth = LockNote("image", "rbd/vm1")
    assert fifth.dead == ["1.2.3.4:0/4"]
    fifth.close(released=True)
    assert LockNote("other", "rbd/vm2").dead == []


def test_a_note_that_is_full_keeps_the_latest_clients() -> None:
    for number in range(100):
        note = LockNote("image", "rbd/vm1")
        note.begin(f"1.2.3.4:0/{number}")
        note.close(released=False)
    dead = LockNote("image", "rbd/vm1").dead
    assert dead[-1] == "1.2.3.4:0/99"
    assert 10 < len(dead) < 100


def test_a_cut_note_names_nobody(own_tmpfs_directory: Path) -> None:
    note = LockNote("image", "rbd/vm1")
    note.begin("1.2.3.4:0/1")
    note.close(released=False)
    (path,) = own_tmpfs_directory.glob("*rbd-*")
    with path.open("r+b") as file:
        file.truncate(4096 + 5)
    assert LockNote("image", "rbd/vm1").dead == []


def test_a_ticker_runs_as_long_as_it_has_something_to_call() -> None:
    ticker = Ticker("test-ticker", 0.001)
    calls: list[str] = []
    first, second = (lambda name=name: calls.append(name) for name in "ab")
    ticker.add(first)
    ticker.add(second)
    wait_until(lambda: {"a", "b"} <= set(calls), "both are called")
    thread: Any = ticker._thread
    ticker.remove(first)
    ticker.remove(second)
    thread.join(10)
    assert not thread.is_alive()
    calls.clear()
    ticker.add(first)
    wait_until(lambda: calls, "it is called again")
    ticker.remove(first)


def test_a_keyring_must_exist(tmp_path: Path) -> None:
    pytest.importorskip("rbd")
    (tmp_path / "ceph.conf").touch()
    document = {"handler": "rbd", "pool": "rbd", "image": "vm1", "conf": str(tmp_path / "ceph.conf")}
    with pytest.raises(UsageError, match="No such file or directory; name an existing keyring"):
        build({**document, "keyring": str(tmp_path / "none")}).check()


class Completion:
    """The result of a request, as librbd tells it."""

    def __init__(self, result: int) -> None:
        self._result = result

    def get_return_value(self) -> int:
        return self._result


class Image:
    """An image with requests that the test ends."""

    def __init__(self) -> None:
        self.ends: list[Callable[..., None]] = []

    def aio_read(self, _offset: int, _length: int, ended: Callable[..., None]) -> None:
        self.ends.append(ended)

    def aio_write(self, _data: bytes, _offset: int, ended: Callable[..., None]) -> None:
        self.ends.append(ended)


@pytest.fixture
def served() -> tuple[RbdHandler, Image]:
    handler, image = RbdHandler(RbdHandler.Options(pool="rbd", image="vm1", timeout=1)), Image()
    handler._image = image
    handler._session.size = 1 << 20
    handler._requests = Requests("rbd/vm1", 0)
    return handler, image


@pytest.mark.parametrize(
    ("result", "data"), [(4096, b"\1" * 4096), (-errno.ETIMEDOUT, None), (100, b"\1" * 100)]
)
def test_a_read_that_ends_too_late_touches_nothing(
    served: tuple[RbdHandler, Image], result: int, data: bytes | None
) -> None:
    handler, image = served
    room = bytearray(4096)
    results: list[OSError | None] = []
    verbs = handler.asynchronous
    assert verbs.read is not None
    verbs.read(0, [memoryview(room)], results.append)
    handler._requests.expire()
    (error,) = results
    assert isinstance(error, TimeoutError)
    image.ends[0](Completion(result), data)
    assert len(results) == 1
    assert not any(room)


def test_a_write_that_ends_too_late_holds_up_writes_until_then(served: tuple[RbdHandler, Image]) -> None:
    handler, image = served
    results: list[OSError | None] = []
    verbs = handler.asynchronous
    assert verbs.write is not None
    write = partial(verbs.write, 0, [memoryview(bytes(4096))], False, results.append)
    write()
    handler._requests.expire()
    with pytest.raises(TimeoutError):
        write()
    image.ends[0](Completion(0))
    write()
    assert len(image.ends) == 2
    assert len(results) == 1


def test_a_read_that_is_cut_short_is_a_medium_error(served: tuple[RbdHandler, Image]) -> None:
    handler, image = served
    results: list[OSError | None] = []
    verbs = handler.asynchronous
    assert verbs.read is not None
    verbs.read(8192, [memoryview(bytearray(4096))], results.append)
    image.ends[0](Completion(512), b"\1" * 512)
    (error,) = results
    assert isinstance(error, MediumError)
    assert error.offset == 8192 + 512
