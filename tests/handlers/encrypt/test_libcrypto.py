"""AES-XTS by libcrypto: the vectors of the standard, and libraries that cannot be used."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.handlers.encrypt import openssl
from vscsihba.handlers.encrypt import libcrypto
from vscsihba.handlers.encrypt.libcrypto import LibcryptoXts, Library
from vscsihba.handlers.encrypt.xts import PackageXts, Xts

KEY_256 = (
    "2718281828459045235360287471352662497757247093699959574966967627"
    "3141592653589793238462643383279502884197169399375105820974944592"
)
COUNTING = bytes(range(256)) * 2


pytestmark = pytest.mark.skipif(not openssl.is_there(), reason="no libcrypto here")


@pytest.fixture
def library() -> Library:
    found = libcrypto.library()
    assert found is not None
    return found


@pytest.fixture
def look_again(library: Library) -> Iterator[None]:
    """Let `libcrypto.library` forget the library that it has found."""
    libcrypto.library.cache_clear()
    yield
    libcrypto.library.cache_clear()


def transform(cipher: Xts, data: bytes, number: int, size: int, *, keep_lock: bool = True) -> bytes:
    room = memoryview(bytearray(data))
    cipher.transform([room], [room], number, size, keep_lock=keep_lock)
    return bytes(room)


@pytest.mark.parametrize("keep_lock", [True, False])
@pytest.mark.parametrize(
    ("key", "number", "plain", "start_of_sealed"),
    [
        ("11" * 16 + "22" * 16, 0x3333333333, b"D" * 32,
         "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"),
        ("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0" + "22" * 16, 0x3333333333, b"D" * 32,
         "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89"),
        ("2718281828459045235360287471352631415926535897932384626433832795", 0, COUNTING,
         "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"),
        (KEY_256, 0xFF, COUNTING, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"),
        (KEY_256, 0xFFFF, COUNTING, "77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11"),
        (KEY_256, 0xFFFFFF, COUNTING, "e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200"),
        (KEY_256, 0xFFFFFFFF, COUNTING, "bf53d2dade78e822a4d949a9bc6766b01b06a8ef70d26748c6a7fc36d80ae4c5"),
        (KEY_256, 0xFFFFFFFFFF, COUNTING, "64497e5a831e4a932c09be3e5393376daa599548b816031d224bbf50a818ed23"),
    ],
    ids=[f"vector {number}" for number in (2, 3, 4, 10, 11, 12, 13, 14)],
)  # fmt: skip
def test_vectors_of_ieee_1619(
    library: Library, key: str, number: int, plain: bytes, start_of_sealed: str, keep_lock: bool
) -> None:
    """IEEE 1619-2007, annex B."""
    encryptor, decryptor = (LibcryptoXts(library, bytes.fromhex(key), encrypts=way) for way in (True, False))
    sealed = transform(encryptor, plain, number, len(plain), keep_lock=keep_lock)
    assert sealed[:32].hex() == start_of_sealed
    assert transform(decryptor, sealed, number, len(plain), keep_lock=keep_lock) == plain


@pytest.mark.parametrize("encrypts", [True, False])
@pytest.mark.parametrize("key_size", [32, 64])
@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
def test_it_agrees_with_the_package(library: Library, encrypts: bool, key_size: int, size: int) -> None:
    pytest.importorskip("cryptography")
    key, number = os.urandom(key_size), int.from_bytes(os.urandom(7), "little") * 8
    sources = [memoryview(os.urandom(sectors * size)) for sectors in (1, 5, 2)]
    results = []
    for cipher in (
        LibcryptoXts(library, key, encrypts=encrypts),
        PackageXts(key, encrypts=encrypts),
        LibcryptoXts(library, key, encrypts=encrypts),
    ):
        before = [bytes(source) for source in sources]
        targets = [memoryview(bytearray(len(source))) for source in sources]
        cipher.transform(sources, targets, number, size, keep_lock=False)
        assert [bytes(source) for source in sources] == before
        results.append([bytes(target) for target in targets])
        sources = [memoryview(bytearray(source)) for source in sources]  # writable ones have an address
    assert results[0] == results[1] == results[2]


def test_the_last_sector_that_has_a_number(library: Library) -> None:
    """The tweak has 64 bits; no disk has so many sectors, and the next one has the number 0."""
    pytest.importorskip("cryptography")
    key, data = os.urandom(64), os.urandom(512)
    number = (1 << 64) - 1
    assert transform(LibcryptoXts(library, key, encrypts=True), data, number, 512) == transform(
        PackageXts(key, encrypts=True), data, number, 512
    )


@pytest.mark.parametrize(("size", "step"), [(512, 1), (1024, 2), (4096, 8)])
def test_the_number_counts_512_bytes(library: Library, size: int, step: int) -> None:
    cipher, data = LibcryptoXts(library, os.urandom(64), encrypts=True), os.urandom(3 * size)
    separately = [
        transform(cipher, data[at * size :][:size], 1000 + at * step, size, keep_lock=True) for at in range(3)
    ]
    assert transform(cipher, data, 1000, size) == b"".join(separately)


@pytest.mark.parametrize(
    ("sources", "targets"),
    [([512], [1024]), ([1024], [512]), ([500], [500]), ([512], [512, 512]), ([512], [])],
)
def test_lengths_that_would_leave_the_memory_are_refused(
    library: Library, sources: list[int], targets: list[int]
) -> None:
    given, wanted = ([memoryview(bytearray(length)) for length in lengths] for lengths in (sources, targets))
    with pytest.raises(ValueError, match=r"bytes to|argument"):
        LibcryptoXts(library, os.urandom(64), encrypts=True).transform(given, wanted, 0, 512, keep_lock=True)


def test_the_copy_of_a_key_is_wiped(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    wiped: list[bytes] = []
    memset = ctypes.memset

    def noting(room: Any, byte: int, length: int) -> None:
        memset(room, byte, length)
        wiped.append(bytes(room))

    monkeypatch.setattr(ctypes, "memset", noting)
    LibcryptoXts(library, os.urandom(32), encrypts=False)
    assert wiped == [bytes(32)]


def test_a_key_with_two_equal_halves_is_refused(library: Library) -> None:
    with pytest.raises(OSError, match="libcrypto refuses the key") as refused:
        LibcryptoXts(library, bytes(64), encrypts=True)
    assert refused.value.errno == errno.EIO


def test_a_context_is_freed_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[int] = []
    free = library.free_context

    def count(context: int) -> None:
        freed.append(context)
        free(context)

    monkeypatch.setattr(library, "free_context", count)
    cipher = LibcryptoXts(library, os.urandom(64), encrypts=True)
    cipher.close()
    cipher.close()
    del cipher
    assert len(freed) == 1
    LibcryptoXts(library, os.urandom(64), encrypts=True)  # and left to the collector
    with pytest.raises(OSError, match="refuses"):
        LibcryptoXts(library, bytes(64), encrypts=True)
    assert len(freed) == 3


def test_a_sector_that_fails_is_an_error(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in ("encrypt_init", "update"):
        calls = library.keeping._replace(**{broken: lambda *_: 0})
        cipher = LibcryptoXts(library, os.urandom(64), encrypts=True)
        cipher._keeping = calls.encrypt_init, calls.update
        with pytest.raises(OSError, match="failed to transform a sector") as failed:
            transform(cipher, bytes(512), 0, 512)
        assert failed.value.errno == errno.EIO
        assert transform(cipher, bytes(512), 0, 512, keep_lock=False) != bytes(512)  # the other form


def test_no_memory_for_a_context(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "new_context", lambda: None)
    with pytest.raises(MemoryError):
        LibcryptoXts(library, os.urandom(64), encrypts=True)


# Libraries that cannot be used


@pytest.mark.parametrize("names", [(), ("libcrypto.so.0",), ("libc.so.6",)], ids=["none", "missing", "other"])
def test_no_library(look_again: None, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    monkeypatch.setattr(libcrypto, "_NAMES", names)
    assert libcrypto.library() is None


def test_the_first_library_that_can_be_used_is_taken(
    look_again: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libcrypto, "_NAMES", ("libcrypto.so.0", "libc.so.6", *libcrypto._NAMES))
    assert libcrypto.library() is not None
    assert libcrypto.library() is libcrypto.library()


def _no_cipher(_name: bytes) -> None:
    """Stand in for a configuration that has no AES-XTS."""


def _another_cipher(found: Library) -> Callable[[bytes], Any]:
    by_name = found.cipher_by_name
    return lambda name: by_name(name.replace(b"XTS", b"CTR"))


@pytest.mark.parametrize("fault", ["refused", "wrong", "init", "update"])
def test_a_library_that_cannot_do_xts_is_left_alone(
    look_again: None, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """As in FIPS mode, where ciphers may be missing, or with a library of another ABI."""

    class Faulty(Library):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            if fault == "refused":
                self.cipher_by_name = _no_cipher
            elif fault == "wrong":
                self.cipher_by_name = _another_cipher(self)
            else:
                broken = "encrypt_init" if fault == "init" else "update"
                self.keeping = self.keeping._replace(**{broken: lambda *_: 0})

    monkeypatch.setattr(libcrypto, "Library", Faulty)
    assert libcrypto.library() is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_can_go_on(library: Library) -> None:
    key, data = os.urandom(64), os.urandom(4096)
    encryptor = LibcryptoXts(library, key, encrypts=True)
    sealed = transform(encryptor, data, 5, 512)
    child = os.fork()
    if child == 0:
        os._exit(transform(encryptor, data, 5, 512) != sealed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert transform(encryptor, data, 5, 512) == sealed


def test_addresses_are_those_of_the_views() -> None:
    room = (ctypes.c_char * 4096)()
    view = memoryview(room).cast("B")
    assert libcrypto._addresses(view[512:1024], view[2048:2560]) == (ctypes.addressof(room) + 2048, -1536)
