"""Sectors on several threads, with ciphers of either kind, until their key is wiped."""

import errno
import os
import sys
from collections.abc import Callable
from threading import Barrier, Thread

import pytest

from tests.handlers.encrypt import openssl
from vscsihba.block import Views
from vscsihba.errors import HostError
from vscsihba.handlers.encrypt import libcrypto, xts
from vscsihba.handlers.encrypt import sectors as sectors_module
from vscsihba.handlers.encrypt.sectors import Sectors
from vscsihba.handlers.encrypt.xts import PackageXts, Xts


@pytest.fixture(params=["libcrypto", "cryptography"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the sectors encrypted by the one or the other."""
    name = str(request.param)
    if name == "cryptography":
        pytest.importorskip("cryptography")
        monkeypatch.setattr(libcrypto, "library", lambda: None)
    elif not openssl.is_there():
        pytest.skip("no libcrypto here")
    return name


class Recording:
    """A cipher that copies, and does something meanwhile.

    Attributes:
        made: All of them.
        meanwhile: Called by each transformation.
        locks: For each transformation: whether it keeps the interpreter's lock, and has a turn.
    """

    made: list["Recording"]
    meanwhile: Callable[[], None]
    locks: list[tuple[bool, bool]]

    def __init__(self, key: bytes | bytearray, *, encrypts: bool) -> None:
        self.closed = 0
        self.made.append(self)

    def transform(self, sources: Views, targets: Views, number: int, size: int, *, keep_lock: bool) -> None:
        for source, target in zip(sources, targets, strict=True):
            target[:] = source
        self.locks.append((keep_lock, sectors_module._TURN.locked()))
        type(self).meanwhile()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    fresh = type("Fresh", (Recording,), {"made": [], "locks": [], "meanwhile": staticmethod(lambda: None)})
    monkeypatch.setattr(xts, "new_cipher", fresh)
    return fresh


def test_both_kinds_are_chosen_as_they_can_be_had(kind: str) -> None:
    assert xts.is_quick() == (kind == "libcrypto")
    assert isinstance(xts.new_cipher(bytes(range(64)), encrypts=True), PackageXts) != xts.is_quick()


def test_neither_kind_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, "library", lambda: None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(HostError, match="without OpenSSL's libcrypto needs the Python package cryptography"):
        Sectors(bytes(range(64)), 512)


def test_xts_of_the_standard(kind: str) -> None:
    """IEEE 1619-2007, vector 10: AES-256, data unit 0xff, in one sector of 512 bytes."""
    key = bytes.fromhex(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    )
    sealed = Sectors(key, 512).encrypt(bytes(range(256)) * 2, 0xFF * 512)
    assert sealed[:16].hex() == "1c3b3a102f770386e4836c99e370cf9b"
    assert Sectors(key, 512).decrypt(sealed, 0xFF * 512) == bytes(range(256)) * 2


def test_the_tweak_counts_512_bytes_whatever_the_sector(kind: str) -> None:
    key, data = os.urandom(64), os.urandom(8192)
    whole = Sectors(key, 4096).encrypt(data, 40960)
    assert whole[4096:] == Sectors(key, 4096).encrypt(data[4096:], 45056)
    assert whole[:512] == Sectors(key, 512).encrypt(data, 40960)[:512]


@pytest.mark.parametrize("keep_lock", [True, False])
def test_views_are_encrypted_elsewhere_and_decrypted_in_place(kind: str, keep_lock: bool) -> None:
    sectors, data = Sectors(os.urandom(32), 512), os.urandom(4096)
    for make in (bytes, bytearray):
        views = [memoryview(make(data[:512])), memoryview(make(data[512:]))]
        sealed = sectors.pass_encrypted(views, 1024, bytes, keep_lock=keep_lock)
        assert sealed == sectors.encrypt(data, 1024)
        assert b"".join(views) == data
    views = [memoryview(bytearray(sealed[:3584])), memoryview(bytearray(sealed[3584:]))]
    sectors.decrypt_in_place(views, 1024, keep_lock=keep_lock)
    assert b"".join(views) == data


def test_threads_do_not_mix_their_sectors(kind: str) -> None:
    sectors, data = Sectors(os.urandom(64), 512), os.urandom(16 << 10)
    expected = {at: bytes(sectors.encrypt(data, at)) for at in range(0, 8 * 512, 512)}
    start, wrong = Barrier(len(expected)), []

    def work(at: int) -> None:
        start.wait()
        for keep_lock in (False, True) * (4 if kind == "libcrypto" else 1):
            sealed = sectors.pass_encrypted([memoryview(data)], at, bytes, keep_lock=keep_lock)
            room = memoryview(bytearray(sealed))
            sectors.decrypt_in_place([room], at, keep_lock=keep_lock)
            if sealed != expected[at] or room != data:
                wrong.append(at)

    threads = [Thread(target=work, args=(at,)) for at in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_those_that_release_the_interpreters_lock_take_turns(recording: type[Recording]) -> None:
    sectors, views = Sectors(b"k" * 64, 512), [memoryview(bytearray(512))]
    sectors.encrypt(views[0], 0)
    sectors.decrypt(views[0], 0)
    sectors.decrypt_in_place(views, 0)
    sectors.pass_encrypted(views, 0, len)
    assert recording.locks == [(False, True)] * 4
    recording.locks.clear()
    sectors.decrypt_in_place(views, 0, keep_lock=True)
    sectors.pass_encrypted(views, 0, len, keep_lock=True)
    assert recording.locks == [(True, False)] * 2
    assert not sectors_module._TURN.locked()


# Wiping


def test_a_wiped_key_encrypts_nothing(kind: str) -> None:
    key = bytearray(os.urandom(64))
    sectors = Sectors(key, 512)
    sectors.encrypt(bytes(512), 0)
    sectors.wipe()
    assert not any(key)
    for verb in (sectors.encrypt, sectors.decrypt):
        with pytest.raises(OSError, match="was destroyed") as gone:
            verb(bytes(512), 0)
        assert gone.value.errno == errno.EIO


def test_ciphers_are_kept_and_closed_when_the_key_is_wiped(recording: type[Recording]) -> None:
    sectors = Sectors(b"k" * 64, 512)
    for _ in range(3):
        sectors.encrypt(bytes(512), 0)
        sectors.decrypt(bytes(512), 0)
    assert [cipher.closed for cipher in recording.made] == [0, 0]
    sectors.wipe()
    assert [cipher.closed for cipher in recording.made] == [1, 1]


def test_a_cipher_in_use_is_closed_after_its_use(recording: type[Recording]) -> None:
    sectors = Sectors(b"k" * 64, 512)
    closed: list[int] = []

    def wipe() -> None:
        sectors.wipe()
        closed.append(recording.made[0].closed)

    recording.meanwhile = wipe
    sectors.decrypt(bytes(512), 0)
    assert closed == [0]
    assert recording.made[0].closed == 1


def test_a_cipher_that_was_made_while_the_key_was_wiped_is_not_used(
    recording: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    sectors = Sectors(b"k" * 64, 512)

    def new(key: bytes, *, encrypts: bool) -> Xts:
        sectors.wipe()
        return recording(key, encrypts=encrypts)

    monkeypatch.setattr(xts, "new_cipher", new)
    with pytest.raises(OSError, match="was destroyed"):
        sectors.encrypt(bytes(512), 0)
    assert [cipher.closed for cipher in recording.made] == [1, 1]


# Buffers


def test_a_buffer_is_used_again_but_never_by_two_at_once(kind: str) -> None:
    sectors, data = Sectors(os.urandom(64), 4096), memoryview(os.urandom(4096))
    used: list[object] = []

    def write(sealed: memoryview) -> None:
        used.append(sealed.obj)
        if len(used) == 2:  # while a write uses the first one
            sectors.pass_encrypted([data], 0, write)

    for _ in range(3):
        sectors.pass_encrypted([data], 0, write)
    assert used[0] is used[1]
    assert used[2] is not used[1]
    assert used[3] in (used[1], used[2])


def test_a_buffer_that_may_have_plaintext_is_dropped(recording: type[Recording]) -> None:
    sectors, data = Sectors(b"k" * 64, 512), [memoryview(b"plaintext" + bytes(503))]
    sectors.pass_encrypted(data, 0, bytes)
    (kept,) = sectors._buffers

    def fail() -> None:
        raise OSError(errno.EIO, "broken")

    recording.meanwhile = fail
    with pytest.raises(OSError, match="broken"):
        sectors.pass_encrypted(data, 0, bytes)
    assert sectors._buffers == []
    recording.meanwhile = lambda: None
    assert bytes(kept[:9]) == b"plaintext"  # this cipher copies


def test_few_buffers_are_kept_and_no_large_ones(recording: type[Recording]) -> None:
    sectors = Sectors(b"k" * 64, 512)
    depth = 0

    def write(_sealed: memoryview) -> None:
        nonlocal depth
        depth += 1
        if depth < 6:
            sectors.pass_encrypted([memoryview(bytes(512))], 0, write)

    sectors.pass_encrypted([memoryview(bytes(512))], 0, write)
    assert len(sectors._buffers) == 4
    sectors._buffers.clear()
    sectors.pass_encrypted([memoryview(bytes(1 << 20))], 0, len)
    assert sectors._buffers == []
